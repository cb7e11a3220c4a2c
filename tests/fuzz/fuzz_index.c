/* The decoders of what the index stores. The first byte says which, and whether the checksum is made right before, so
 * that what lies behind it is reached, too. What they accept comes out of the encoder as it went in. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/macros.h"
#include "shard/index/record.h"
#include "tests/fuzz/fuzz.h"

#define ENTRY 20u
#define DIM 8u
#define KEY "key"
#define KEY_LEN 3u

enum kind { CELL, DELTA, ROW, CHUNK, SPACE, COUNTS, TUNING, FILE_HEAD, KINDS };

/* Bytes before what the checksum's field is the end of; 0: there is none. */
static const size_t heads[KINDS] = {[CELL] = 12, [DELTA] = 8, [CHUNK] = 12, [SPACE] = 56, [FILE_HEAD] = 48};

static void mend(enum kind kind, uint8_t *bytes, size_t len)
{
	const size_t head = heads[kind];
	const bool keyed = kind == CELL || kind == DELTA || kind == CHUNK;
	uint32_t crc = keyed ? kx_crc32c(0, KEY, KEY_LEN) : 0;

	if (!head || len < head)
		return;
	crc = kx_crc32c(crc, bytes, head - 4);
	kx_le32_put(bytes + head - 4, kx_crc32c(crc, bytes + head, len - head));
}

static void check_cell(const uint8_t *bytes, size_t len)
{
	struct kx_buf out = {.max = 1 << 20};
	struct kx_cell_view view;

	if (kx_cell_decode(KEY, KEY_LEN, bytes, len, ENTRY, &view, NULL))
		return;
	for (uint32_t i = 0; i < view.count; i++)
		FUZZ_CHECK(kx_entry_row(view.entries + (size_t)i * ENTRY) < KX_INDEX_ROWS_MAX);
	FUZZ_CHECK(kx_cell_encode(KEY, KEY_LEN, view.entries, view.count, ENTRY, &out) == KX_OK);
	FUZZ_CHECK(out.len == len && memcmp(out.data + 12, bytes + 12, len - 12) == 0);
	kx_buf_done(&out);
}

static void check_delta(const uint8_t *bytes, size_t len)
{
	uint8_t out[KX_DELTA_MAX];
	const uint8_t *entry;

	if (kx_delta_decode(KEY, KEY_LEN, bytes, len, ENTRY, &entry, NULL))
		return;
	FUZZ_CHECK(!entry || kx_entry_row(entry) < KX_INDEX_ROWS_MAX);
	FUZZ_CHECK(kx_delta_encode(KEY, KEY_LEN, entry, ENTRY, out) == len && memcmp(out, bytes, len) == 0);
}

static void check_row(const uint8_t *bytes, size_t len)
{
	struct kx_buf out = {.max = 1 << 20};
	struct kx_row_view view;

	if (kx_row_decode(bytes, len, &view, NULL))
		return;
	FUZZ_CHECK(view.key_len && view.key_len <= KX_INDEX_KEY_MAX && view.attributes_len <= KX_INDEX_ATTRIBUTES_MAX);
	FUZZ_CHECK(kx_row_encode(&view, &out) == KX_OK && out.len == len);
	kx_buf_done(&out);
}

static void check_chunk(const uint8_t *bytes, size_t len)
{
	struct kx_chunk_view view;
	float value;

	if (kx_chunk_decode(KEY, KEY_LEN, bytes, len, DIM, &view, NULL))
		return;
	FUZZ_CHECK(view.mask && view.mask < 1u << KX_CHUNK_CELLS);
	for (uint32_t i = 0; i < (uint32_t)__builtin_popcount(view.mask) * DIM; i++) {
		memcpy(&value, view.floats + 4 * i, sizeof(value));
		FUZZ_CHECK(isfinite(value));
	}
}

static void check_space(const uint8_t *bytes, size_t len)
{
	uint8_t out[KX_SPACE_RECORD_MAX];
	struct kx_space_record space, back;

	if (kx_space_decode(bytes, len, &space, NULL))
		return;
	FUZZ_CHECK(space.recipe.dim >= KX_IVF_DIM_MIN && space.recipe.dim <= KX_IVF_DIM_MAX && *space.name);
	FUZZ_CHECK(kx_space_decode(out, kx_space_encode(&space, out), &back, NULL) == KX_OK);
	FUZZ_CHECK(strcmp(space.name, back.name) == 0 && space.generation == back.generation);
}

static void check_small(enum kind kind, const uint8_t *bytes, size_t len)
{
	struct kx_counts_record counts;
	struct kx_ivf_tuning tuning;
	struct kx_file_record file;
	float scale;

	if (kind == COUNTS && !kx_counts_decode(bytes, len, &counts, NULL))
		FUZZ_CHECK(counts.rows <= counts.rows_bound && counts.rows_bound <= KX_INDEX_ROWS_MAX);
	if (kind == TUNING && !kx_tuning_decode(bytes, len, &tuning, &scale, NULL))
		FUZZ_CHECK(tuning.count <= KX_IVF_TUNING_POINTS && scale > 0);
	if (kind == FILE_HEAD)
		(void)!kx_file_decode(bytes, len, &file);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	enum kind kind;
	uint8_t *copy;

	if (!len)
		return 0;
	kind = (enum kind)(bytes[0] % KINDS);
	copy = malloc(len > 1 ? len - 1 : 1); /* of the exact size, for the sanitizer */
	FUZZ_CHECK(copy);
	memcpy(copy, bytes + 1, len - 1);
	if (bytes[0] & 0x80u)
		mend(kind, copy, len - 1);
	switch (kind) {
	case CELL:
		check_cell(copy, len - 1);
		break;
	case DELTA:
		check_delta(copy, len - 1);
		break;
	case ROW:
		check_row(copy, len - 1);
		break;
	case CHUNK:
		check_chunk(copy, len - 1);
		break;
	case SPACE:
		check_space(copy, len - 1);
		break;
	default:
		check_small(kind, copy, len - 1);
		break;
	}
	free(copy);
	return 0;
}
