#include "worker/media/testkit.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/fs.h"
#include "common/base/str.h"
#include "worker/media/sample.h"

static char folder[256];

int kit_enter(void **state)
{
	const char *base = getenv("TMPDIR");
	(void)state;
	snprintf(folder, sizeof(folder), "%s/kx-media-XXXXXX", base ? base : "/tmp");
	assert_non_null(mkdtemp(folder));
	kx_media_init();
	return 0;
}

int kit_leave(void **state)
{
	(void)state;
	return kx_fs_remove_tree(folder, NULL);
}

const char *kit_path(const char *name)
{
	static char paths[8][512];
	static unsigned next;
	char *path = paths[next++ % KX_ARRAY_LEN(paths)];
	snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

void kit_shell(const char *format, ...)
{
	va_list args;
	char command[4096];
	va_start(args, format);
	int len = vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	assert_in_range(len, 1, sizeof(command) - 1);
	if (system(command) != 0)
		fail_msg("failed: %s", command);
}

const char *kit_clip(const char *name, const char *arguments)
{
	const char *path = kit_path(name);
	kit_shell("ffmpeg -nostdin -v error -y %s '%s'", arguments, path);
	return path;
}

void kit_write(const char *path, const void *bytes, size_t len)
{
	assert_int_equal(kx_fs_write(path, bytes, len, NULL), KX_OK);
}

const char *kit_cut(const char *path, const char *name, double part)
{
	struct kx_buf buf = {0};
	const char *to = kit_path(name);
	assert_int_equal(kx_fs_read(path, 1 << 28, &buf, NULL), KX_OK);
	kit_write(to, buf.data, (size_t)((double)buf.len * part));
	kx_buf_done(&buf);
	return to;
}

static uint64_t hash_bytes(const uint8_t *bytes, size_t len)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
	return hash;
}

static kx_status on_opened(void *ctx, const struct kx_probe_info *info)
{
	struct kit_run *run = ctx;
	return kx_probe_info_copy(info, &run->info);
}

static kx_status on_acquire(void *ctx, void **ret_memory)
{
	struct kit_run *run = ctx;
	*ret_memory = run->memory;
	return KX_OK;
}

static kx_status keep(struct kit_item **items, size_t *count, const struct kx_sample *sample, const uint8_t *bytes,
		      size_t len, bool keep_bytes)
{
	struct kit_item *grown = realloc(*items, (*count + 1) * sizeof(*grown));
	if (!grown)
		return KX_ENOMEM;
	*items = grown;
	struct kit_item *item = &grown[(*count)++];
	*item = (struct kit_item){.sample = *sample, .hash = hash_bytes(bytes, len)};
	if (!keep_bytes)
		return KX_OK;
	item->bytes = malloc(len);
	if (!item->bytes)
		return KX_ENOMEM;
	memcpy(item->bytes, bytes, len);
	return KX_OK;
}

static kx_status on_frame(void *ctx, const struct kx_sample *sample)
{
	struct kit_run *run = ctx;
	if (run->fail_at && run->frame_count + 1 == run->fail_at)
		return KX_ECANCELED;
	return keep(&run->frames, &run->frame_count, sample, run->memory, run->frame_bytes, run->keep_bytes);
}

static kx_status on_patch(void *ctx, const struct kx_sample *sample)
{
	struct kit_run *run = ctx;
	return keep(&run->patches, &run->patch_count, sample, run->memory, KX_PATCH_BYTES, run->keep_bytes);
}

void kit_sample(const char *path, struct kit_want want, struct kit_run *ret_run)
{
	uint32_t side = want.side ? want.side : 224;
	size_t frame_bytes = (size_t)side * side * 3;
	size_t bytes = frame_bytes > KX_PATCH_BYTES ? frame_bytes : KX_PATCH_BYTES;
	*ret_run = (struct kit_run){
		.keep_bytes = want.keep_bytes,
		.frame_bytes = frame_bytes,
		.fail_at = want.fail_at,
		/* Exactly as large as said, so that the sanitizers see what is written past it. */
		.memory = malloc(bytes),
	};
	assert_non_null(ret_run->memory);
	struct kx_media_sink sink = {ret_run, on_opened, on_acquire, on_frame, on_patch};
	struct kx_decode_request request = {
		.purpose = KX_DECODE_SAMPLE,
		.tracks = want.tracks ? want.tracks : KX_TRACK_VISUAL | KX_TRACK_AUDIO,
		.fps = want.fps > 0 ? want.fps : 1,
		.decode_mode = want.mode ? want.mode : KX_DECODE_EXACT,
		.decode_tolerance_us = want.tolerance_us,
		.start_us = want.start_us,
		.end_us = want.end_us,
		.width = side,
		.height = side,
		.name = strrchr(path, '/') ? strrchr(path, '/') + 1 : "clip",
	};
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	struct kx_sample_options options = {.decode_all = want.decode_all};
	ret_run->status = kx_sample_run(fd, &request, &sink, &options, &ret_run->end, &ret_run->error);
	close(fd);
}

void kit_done(struct kit_run *run)
{
	for (size_t i = 0; i < run->frame_count; i++)
		free(run->frames[i].bytes);
	for (size_t i = 0; i < run->patch_count; i++)
		free(run->patches[i].bytes);
	free(run->frames);
	free(run->patches);
	free(run->memory);
	kx_probe_info_done(&run->info);
	kx_media_end_done(&run->end);
	*run = (struct kit_run){0};
}

kx_status kit_probe(const char *path, struct kx_probe_info *ret_info, enum kx_reason *ret_reason)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	kx_status status = kx_media_probe(fd, "clip", ret_info, ret_reason, NULL);
	close(fd);
	return status;
}

static void assert_items(const struct kit_item *a, size_t a_count, const struct kit_item *b, size_t b_count,
			 const char *what, const char *kind)
{
	for (size_t i = 0; i < a_count && i < b_count; i++) {
		if (a[i].sample.index != b[i].sample.index || a[i].sample.pts_us != b[i].sample.pts_us)
			fail_msg("%s: %s %zu: index %llu at %llu us, or %llu at %llu us", what, kind, i,
				 (unsigned long long)a[i].sample.index, (unsigned long long)a[i].sample.pts_us,
				 (unsigned long long)b[i].sample.index, (unsigned long long)b[i].sample.pts_us);
		if (a[i].hash != b[i].hash)
			fail_msg("%s: %s %zu (at %llu us) differs", what, kind, i,
				 (unsigned long long)a[i].sample.pts_us);
	}
	if (a_count != b_count)
		fail_msg("%s: %zu %ss or %zu", what, a_count, kind, b_count);
}

void kit_assert_same(const struct kit_run *a, const struct kit_run *b, const char *what)
{
	assert_items(a->frames, a->frame_count, b->frames, b->frame_count, what, "frame");
	assert_items(a->patches, a->patch_count, b->patches, b->patch_count, what, "patch");
}
