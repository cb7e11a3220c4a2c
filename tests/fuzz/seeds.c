/* Writes the seeds of tests/fuzz/corpus that are no media files: a packed sample of every record, and manifests. The
 * other targets play out a scene from any bytes, and need none.
 *
 *   fuzz_seeds CORPUS
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/fs.h"
#include "common/base/macros.h"
#include "common/base/str.h"
#include "common/record/test_samples.h"
#include "shard/index/record.h"
#include "tests/fuzz/fuzz.h"

static const char jsonl[] =
	"\0{\"id\": \"a\", \"path\": \"films/a.mp4\", \"title\": \"A \\u00e9 \\\"b\\\"\", \"labels\": [\"x\", \"y\"], "
	"\"language\": \"en\", \"attributes\": {\"season\": 3, \"live\": true, \"team\": \"b\"}}\n"
	"{\"id\": \"b\", \"url\": \"file:///films/b%20c.mp4\", \"duration_ms\": 61500.5, \"views\": {\"n\": [1]}}\n"
	"\n{\"id\": \"c\", \"path\": \"/c.mp4\", \"title\": null}\r\n";
static const char csv[] =
	"\1id,path,url,title,labels,duration_ms,views,attr.season,language\n"
	"a,films/a.mp4,,\"A \"\"b\"\", c\",x;y,61500,1,3,en\r\n"
	"\xc3\xa9,,file:///films/b%20c.mp4,\"two\nlines\",,,,four,\n"
	"\nc,/c.mp4,,,; ;z,12.5,,,\n";

static void put(const char *corpus, const char *target, const char *name, const void *bytes, size_t len)
{
	char *folder = kx_fs_join(corpus, target);
	char *path = folder ? kx_fs_join(folder, name) : NULL;
	struct kx_error error = {0};

	FUZZ_CHECK(path);
	if (kx_fs_mkdirs(folder, &error) != KX_OK || kx_fs_write(path, bytes, len, &error) != KX_OK) {
		fprintf(stderr, "%s\n", error.message);
		exit(1);
	}
	free(path);
	free(folder);
}

static const char *const filters[] = {
	"class:\"ice hockey\">0.5 and duration<10m or not (label:cat and added>now-7d)",
	"source:/films/*.mp4 and title ~ \"a t\" and lang in (en, \"de\") and has:audio",
	"season >= 3 and live = true and team != dog and class:#2 < 0.5 and added = 2026-11-20 and id = v1",
};

static void put_records(const char *corpus)
{
	for (size_t i = 0; i < record_case_count; i++) {
		struct kx_buf out = {.max = KX_RECORD_MAX};
		uint8_t number = (uint8_t)i;

		FUZZ_CHECK(kx_buf_append(&out, &number, 1) == KX_OK);
		FUZZ_CHECK(record_cases[i].pack(record_cases[i].sample, &out) == KX_OK);
		put(corpus, "record", record_cases[i].name, out.data, out.len);
		kx_buf_done(&out);
	}
}

/* A record of the index, as fuzz_index.c takes it: 0x80 has it mend the checksum of what mutation makes of it. */
static void put_index(const char *corpus, uint8_t kind, const char *name, const void *bytes, size_t len)
{
	struct kx_buf out = {.max = KX_RECORD_MAX};

	kind |= 0x80u;
	FUZZ_CHECK(kx_buf_append(&out, &kind, 1) == KX_OK && kx_buf_append(&out, bytes, len) == KX_OK);
	put(corpus, "index", name, out.data, out.len);
	kx_buf_done(&out);
}

static void put_index_records(const char *corpus)
{
	const uint8_t entries[2 * 20] = {7, [20] = 9};
	const float centroid[8] = {1, 0.5f};
	const float *centroids[KX_CHUNK_CELLS] = {[2] = centroid, [9] = centroid};
	struct kx_space_record space = {.name = "clip/visual", .recipe = {256, KX_METRIC_COSINE, 5}};
	struct kx_ivf_tuning tuning = {.count = 2, .recall = {0.9f, 0.99f}, .effort = {1, 4}};
	struct kx_buf out = {.max = KX_RECORD_MAX};
	uint8_t bytes[KX_SPACE_RECORD_MAX], delta[KX_DELTA_MAX], tuned[KX_TUNING_BYTES], counted[KX_COUNTS_BYTES];
	uint8_t head[KX_FILE_RECORD_BYTES];

	FUZZ_CHECK(kx_cell_encode("key", 3, entries, 2, 20, &out) == KX_OK);
	put_index(corpus, 0, "cell", out.data, out.len);
	put_index(corpus, 1, "delta", delta, kx_delta_encode("key", 3, entries, 20, delta));
	put_index(corpus, 1, "gone", delta, kx_delta_encode("key", 3, NULL, 20, delta));
	kx_buf_clear(&out);
	FUZZ_CHECK(kx_row_encode(&(struct kx_row_view){entries, 4, entries, 3}, &out) == KX_OK);
	put_index(corpus, 2, "row", out.data, out.len);
	kx_buf_clear(&out);
	FUZZ_CHECK(kx_chunk_encode("key", 3, 1u << 2 | 1u << 9, centroids, 8, &out) == KX_OK);
	put_index(corpus, 3, "chunk", out.data, out.len);
	put_index(corpus, 4, "space", bytes, kx_space_encode(&space, bytes));
	kx_counts_encode(&(struct kx_counts_record){10, 9}, counted);
	put_index(corpus, 5, "counts", counted, sizeof(counted));
	kx_tuning_encode(&tuning, 1.0f, tuned);
	put_index(corpus, 6, "tuning", tuned, sizeof(tuned));
	kx_file_encode(&(struct kx_file_record){.dim = 256, .session = 3, .clean = true}, head);
	put_index(corpus, 7, "file", head, sizeof(head));
	kx_buf_done(&out);
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "fuzz_seeds CORPUS\n");
		return 2;
	}
	put_records(argv[1]);
	put_index_records(argv[1]);
	put(argv[1], "manifest", "jsonl", jsonl, sizeof(jsonl) - 1);
	put(argv[1], "manifest", "csv", csv, sizeof(csv) - 1);
	for (size_t i = 0; i < KX_ARRAY_LEN(filters); i++)
		put(argv[1], "filter", (char[]){'f', (char)('0' + i), '\0'}, filters[i], strlen(filters[i]));
	return 0;
}
