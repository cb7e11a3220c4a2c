#include "shard/index/record.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define CELL_HEAD 12u   /* version, 0, entry bytes (2), count, checksum */
#define DELTA_HEAD 8u   /* version, kind, entry bytes (2), checksum */
#define ROW_HEAD 4u     /* version, 0, key length (2) */
#define CHUNK_HEAD 12u  /* version, 0, 0, 0, mask, checksum */
#define SPACE_HEAD 56u
#define FILE_MAGIC "kxvec16\n"

enum delta_kind { DELTA_PUT = 1, DELTA_GONE };

void kx_le32_put(uint8_t out[4], uint32_t value)
{
	for (int i = 0; i < 4; i++)
		out[i] = (uint8_t)(value >> 8 * i);
}

uint32_t kx_le32_get(const uint8_t in[4])
{
	return (uint32_t)in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16 | (uint32_t)in[3] << 24;
}

void kx_le64_put(uint8_t out[8], uint64_t value)
{
	kx_le32_put(out, (uint32_t)value);
	kx_le32_put(out + 4, (uint32_t)(value >> 32));
}

uint64_t kx_le64_get(const uint8_t in[8])
{
	return (uint64_t)kx_le32_get(in + 4) << 32 | kx_le32_get(in);
}

static float get_float(const uint8_t in[4])
{
	uint32_t bits = kx_le32_get(in);
	float value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

static void put_float(uint8_t out[4], float value)
{
	uint32_t bits;

	memcpy(&bits, &value, sizeof(bits));
	kx_le32_put(out, bits);
}

static void put_16(uint8_t out[2], uint32_t value)
{
	out[0] = (uint8_t)value;
	out[1] = (uint8_t)(value >> 8);
}

static uint32_t get_16(const uint8_t in[2])
{
	return (uint32_t)in[0] | (uint32_t)in[1] << 8;
}

static kx_status bad(const char *what, const char *why, struct kx_error *error)
{
	return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "%s of the index: %s", what, why);
}

static kx_status check_version(uint8_t version, const char *what, struct kx_error *error)
{
	if (version == KX_RECORD_FORMAT)
		return KX_OK;
	return kx_error_set(error, KX_EVERSION, KX_ERROR_FATAL, "%s of the index: format %u, and this program knows %u",
			    what, version, KX_RECORD_FORMAT);
}

uint32_t kx_entry_row(const void *entry)
{
	return kx_le32_get(entry);
}

static bool entry_is_good(const uint8_t *entry)
{
	return kx_entry_row(entry) < KX_INDEX_ROWS_MAX && isfinite(get_float(entry + 4)) &&
	       isfinite(get_float(entry + 8));
}

/* Over the key, the head up to the checksum, and the rest. */
static uint32_t sum(const void *key, size_t key_len, const uint8_t *bytes, size_t head, size_t len)
{
	uint32_t crc = kx_crc32c(0, key, key_len);

	crc = kx_crc32c(crc, bytes, head - 4);
	return kx_crc32c(crc, bytes + head, len - head);
}

kx_status kx_cell_encode(const void *key, size_t key_len, const void *entries, uint32_t count, uint32_t entry_bytes,
			 struct kx_buf *out)
{
	uint8_t head[CELL_HEAD] = {KX_RECORD_FORMAT};
	size_t at = out->len, len = (size_t)count * entry_bytes;
	kx_status status = kx_buf_reserve(out, sizeof(head) + len);

	if (status)
		return status;
	put_16(head + 2, entry_bytes);
	kx_le32_put(head + 4, count);
	status = kx_buf_append(out, head, sizeof(head));
	if (!status && len)
		status = kx_buf_append(out, entries, len);
	if (!status)
		kx_le32_put(out->data + at + 8, sum(key, key_len, out->data + at, CELL_HEAD, CELL_HEAD + len));
	return status;
}

kx_status kx_cell_decode(const void *key, size_t key_len, const void *bytes, size_t len, uint32_t entry_bytes,
			 struct kx_cell_view *ret, struct kx_error *error)
{
	const uint8_t *in = bytes;
	struct kx_cell_view view;
	kx_status status;

	if (len < CELL_HEAD)
		return bad("a cell", "it is cut off", error);
	status = check_version(in[0], "a cell", error);
	if (status)
		return status;
	view.count = kx_le32_get(in + 4);
	view.entries = in + CELL_HEAD;
	if (get_16(in + 2) != entry_bytes || (len - CELL_HEAD) / entry_bytes != view.count ||
	    (len - CELL_HEAD) % entry_bytes)
		return bad("a cell", "its length is another", error);
	if (kx_le32_get(in + 8) != sum(key, key_len, in, CELL_HEAD, len))
		return bad("a cell", "its checksum is another", error);
	for (uint32_t i = 0; i < view.count; i++)
		if (!entry_is_good(view.entries + (size_t)i * entry_bytes))
			return bad("a cell", "an entry is none", error);
	*ret = view;
	return KX_OK;
}

size_t kx_delta_encode(const void *key, size_t key_len, const void *entry, uint32_t entry_bytes,
		       uint8_t out[KX_DELTA_MAX])
{
	size_t len = DELTA_HEAD;

	out[0] = KX_RECORD_FORMAT;
	out[1] = entry ? DELTA_PUT : DELTA_GONE;
	put_16(out + 2, entry ? entry_bytes : 0);
	if (entry) {
		memcpy(out + DELTA_HEAD, entry, entry_bytes);
		len += entry_bytes;
	}
	kx_le32_put(out + 4, sum(key, key_len, out, DELTA_HEAD, len));
	return len;
}

kx_status kx_delta_decode(const void *key, size_t key_len, const void *bytes, size_t len, uint32_t entry_bytes,
			  const uint8_t **ret_entry, struct kx_error *error)
{
	const uint8_t *in = bytes;
	kx_status status;

	if (len < DELTA_HEAD)
		return bad("a change", "it is cut off", error);
	status = check_version(in[0], "a change", error);
	if (status)
		return status;
	if (in[1] != DELTA_PUT && in[1] != DELTA_GONE)
		return bad("a change", "its kind is none", error);
	if (get_16(in + 2) != (in[1] == DELTA_PUT ? entry_bytes : 0) || len != DELTA_HEAD + get_16(in + 2))
		return bad("a change", "its length is another", error);
	if (kx_le32_get(in + 4) != sum(key, key_len, in, DELTA_HEAD, len))
		return bad("a change", "its checksum is another", error);
	if (in[1] == DELTA_PUT && !entry_is_good(in + DELTA_HEAD))
		return bad("a change", "its entry is none", error);
	*ret_entry = in[1] == DELTA_PUT ? in + DELTA_HEAD : NULL;
	return KX_OK;
}

kx_status kx_row_encode(const struct kx_row_view *row, struct kx_buf *out)
{
	uint8_t head[ROW_HEAD] = {KX_RECORD_FORMAT};
	kx_status status = kx_buf_reserve(out, sizeof(head) + row->key_len + row->attributes_len);

	put_16(head + 2, (uint32_t)row->key_len);
	if (!status)
		status = kx_buf_append(out, head, sizeof(head));
	if (!status)
		status = kx_buf_append(out, row->key, row->key_len);
	if (!status && row->attributes_len)
		status = kx_buf_append(out, row->attributes, row->attributes_len);
	return status;
}

kx_status kx_row_decode(const void *bytes, size_t len, struct kx_row_view *ret, struct kx_error *error)
{
	const uint8_t *in = bytes;
	struct kx_row_view row;
	kx_status status;

	if (len < ROW_HEAD)
		return bad("a row", "it is cut off", error);
	status = check_version(in[0], "a row", error);
	if (status)
		return status;
	row.key = in + ROW_HEAD;
	row.key_len = get_16(in + 2);
	if (!row.key_len || row.key_len > KX_INDEX_KEY_MAX || row.key_len > len - ROW_HEAD ||
	    len - ROW_HEAD - row.key_len > KX_INDEX_ATTRIBUTES_MAX)
		return bad("a row", "its length is another", error);
	row.attributes = row.key + row.key_len;
	row.attributes_len = len - ROW_HEAD - row.key_len;
	*ret = row;
	return KX_OK;
}

kx_status kx_chunk_encode(const void *key, size_t key_len, uint32_t mask, const float *const *centroids, uint32_t dim,
			  struct kx_buf *out)
{
	uint8_t head[CHUNK_HEAD] = {KX_RECORD_FORMAT};
	size_t at = out->len;
	kx_status status;

	kx_le32_put(head + 4, mask);
	status = kx_buf_append(out, head, sizeof(head));
	for (uint32_t i = 0; !status && i < KX_CHUNK_CELLS; i++) {
		if (!(mask >> i & 1u))
			continue;
		status = kx_buf_reserve(out, dim * 4u);
		for (uint32_t j = 0; !status && j < dim; j++) {
			put_float(out->data + out->len, centroids[i][j]);
			out->len += 4;
		}
		if (!status)
			out->data[out->len] = 0;
	}
	if (!status)
		kx_le32_put(out->data + at + 8, sum(key, key_len, out->data + at, CHUNK_HEAD, out->len - at));
	return status;
}

kx_status kx_chunk_decode(const void *key, size_t key_len, const void *bytes, size_t len, uint32_t dim,
			  struct kx_chunk_view *ret, struct kx_error *error)
{
	const uint8_t *in = bytes;
	uint32_t mask;
	size_t floats;
	kx_status status;

	if (len < CHUNK_HEAD)
		return bad("a chunk of centroids", "it is cut off", error);
	status = check_version(in[0], "a chunk of centroids", error);
	if (status)
		return status;
	mask = kx_le32_get(in + 4);
	floats = (size_t)__builtin_popcount(mask) * dim;
	if (!mask || mask >> KX_CHUNK_CELLS || len != CHUNK_HEAD + floats * 4)
		return bad("a chunk of centroids", "its length is another", error);
	if (kx_le32_get(in + 8) != sum(key, key_len, in, CHUNK_HEAD, len))
		return bad("a chunk of centroids", "its checksum is another", error);
	for (size_t i = 0; i < floats; i++)
		if (!isfinite(get_float(in + CHUNK_HEAD + i * 4)))
			return bad("a chunk of centroids", "a number is none", error);
	*ret = (struct kx_chunk_view){mask, in + CHUNK_HEAD};
	return KX_OK;
}

size_t kx_space_encode(const struct kx_space_record *space, uint8_t out[KX_SPACE_RECORD_MAX])
{
	size_t name_len = strlen(space->name);
	uint64_t distance;

	assert(name_len <= KX_INDEX_SPACE_NAME_MAX);
	memset(out, 0, SPACE_HEAD);
	memcpy(&distance, &space->trained_distance2, sizeof(distance));
	out[0] = KX_RECORD_FORMAT;
	out[1] = (uint8_t)space->recipe.metric;
	out[2] = (uint8_t)(space->trained | space->filling << 1);
	kx_le32_put(out + 4, space->recipe.dim);
	kx_le64_put(out + 8, space->recipe.seed);
	kx_le32_put(out + 16, space->generation);
	kx_le64_put(out + 24, space->trained_rows);
	kx_le64_put(out + 32, distance);
	memcpy(out + SPACE_HEAD, space->name, name_len);
	kx_le32_put(out + SPACE_HEAD - 4, sum(NULL, 0, out, SPACE_HEAD, SPACE_HEAD + name_len));
	return SPACE_HEAD + name_len;
}

kx_status kx_space_decode(const void *bytes, size_t len, struct kx_space_record *ret, struct kx_error *error)
{
	const uint8_t *in = bytes;
	struct kx_space_record space = {0};
	uint64_t distance;
	kx_status status;

	if (len <= SPACE_HEAD || len > SPACE_HEAD + KX_INDEX_SPACE_NAME_MAX)
		return bad("a space", "its length is another", error);
	status = check_version(in[0], "a space", error);
	if (status)
		return status;
	if (kx_le32_get(in + SPACE_HEAD - 4) != sum(NULL, 0, in, SPACE_HEAD, len))
		return bad("a space", "its checksum is another", error);
	if (memchr(in + SPACE_HEAD, 0, len - SPACE_HEAD))
		return bad("a space", "its name has a zero byte", error);
	space.recipe.metric = (enum kx_metric)in[1];
	space.trained = in[2] & 1u;
	space.filling = in[2] >> 1 & 1u;
	space.recipe.dim = kx_le32_get(in + 4);
	space.recipe.seed = kx_le64_get(in + 8);
	space.generation = kx_le32_get(in + 16);
	space.trained_rows = kx_le64_get(in + 24);
	distance = kx_le64_get(in + 32);
	memcpy(&space.trained_distance2, &distance, sizeof(distance));
	memcpy(space.name, in + SPACE_HEAD, len - SPACE_HEAD);
	if (space.recipe.dim < KX_IVF_DIM_MIN || space.recipe.dim > KX_IVF_DIM_MAX ||
	    (space.recipe.metric != KX_METRIC_COSINE && space.recipe.metric != KX_METRIC_INNER_PRODUCT) ||
	    !isfinite(space.trained_distance2))
		return bad("a space", "its numbers are none", error);
	*ret = space;
	return KX_OK;
}

void kx_counts_encode(const struct kx_counts_record *counts, uint8_t out[KX_COUNTS_BYTES])
{
	kx_le32_put(out, KX_RECORD_FORMAT);
	kx_le32_put(out + 4, counts->rows_bound);
	kx_le64_put(out + 8, counts->rows);
}

kx_status kx_counts_decode(const void *bytes, size_t len, struct kx_counts_record *ret, struct kx_error *error)
{
	const uint8_t *in = bytes;
	struct kx_counts_record counts;
	kx_status status;

	if (len != KX_COUNTS_BYTES)
		return bad("the counts of a space", "their length is another", error);
	status = check_version(in[0], "the counts of a space", error);
	if (status)
		return status;
	counts.rows_bound = kx_le32_get(in + 4);
	counts.rows = kx_le64_get(in + 8);
	if (counts.rows_bound > KX_INDEX_ROWS_MAX || counts.rows > counts.rows_bound)
		return bad("the counts of a space", "they can't be", error);
	*ret = counts;
	return KX_OK;
}

#define SPREAD_STEPS 1024.0f

void kx_tuning_encode(const struct kx_ivf_tuning *tuning, float scale, uint8_t out[KX_TUNING_BYTES])
{
	memset(out, 0, KX_TUNING_BYTES);
	kx_le32_put(out, KX_RECORD_FORMAT | (uint32_t)(tuning->spread * SPREAD_STEPS + 0.5f) << 16);
	kx_le32_put(out + 4, tuning->count);
	put_float(out + 8, scale);
	for (uint32_t i = 0; i < tuning->count; i++) {
		put_float(out + 12 + 8 * i, tuning->recall[i]);
		put_float(out + 16 + 8 * i, tuning->effort[i]);
	}
}

kx_status kx_tuning_decode(const void *bytes, size_t len, struct kx_ivf_tuning *ret, float *ret_scale,
			   struct kx_error *error)
{
	const uint8_t *in = bytes;
	struct kx_ivf_tuning tuning = {0};
	float scale;
	bool good;
	kx_status status;

	if (len != KX_TUNING_BYTES)
		return bad("a tuning", "its length is another", error);
	status = check_version(in[0], "a tuning", error);
	if (status)
		return status;
	tuning.spread = (float)(kx_le32_get(in) >> 16) / SPREAD_STEPS; /* 0 of a store of before there was any */
	tuning.count = kx_le32_get(in + 4);
	scale = get_float(in + 8);
	good = tuning.count <= KX_IVF_TUNING_POINTS && tuning.spread <= KX_IVF_SPREAD_MAX && scale > 0.0f && isfinite(scale);
	for (uint32_t i = 0; good && i < tuning.count; i++) {
		tuning.recall[i] = get_float(in + 12 + 8 * i);
		tuning.effort[i] = get_float(in + 16 + 8 * i);
		good = tuning.recall[i] >= 0.0f && tuning.recall[i] <= 1.0f && tuning.effort[i] >= 0.0f &&
		       isfinite(tuning.effort[i]) && (!i || (tuning.recall[i] >= tuning.recall[i - 1] &&
							     tuning.effort[i] >= tuning.effort[i - 1]));
	}
	if (!good)
		return bad("a tuning", "its numbers are none", error);
	*ret = tuning;
	*ret_scale = scale;
	return KX_OK;
}

void kx_file_encode(const struct kx_file_record *file, uint8_t out[KX_FILE_RECORD_BYTES])
{
	memset(out, 0, KX_FILE_RECORD_BYTES);
	memcpy(out, FILE_MAGIC, 8);
	kx_le32_put(out + 8, KX_RECORD_FORMAT);
	kx_le32_put(out + 12, file->dim);
	kx_le64_put(out + 16, file->session);
	kx_le64_put(out + 24, file->next_session);
	kx_le32_put(out + 32, file->clean);
	kx_le32_put(out + 44, kx_crc32c(0, out, 44));
}

kx_status kx_file_decode(const void *bytes, size_t len, struct kx_file_record *ret)
{
	const uint8_t *in = bytes;

	if (len != KX_FILE_RECORD_BYTES || memcmp(in, FILE_MAGIC, 8) != 0 ||
	    kx_le32_get(in + 44) != kx_crc32c(0, in, 44))
		return KX_ECORRUPT;
	if (kx_le32_get(in + 8) != KX_RECORD_FORMAT)
		return KX_EVERSION;
	*ret = (struct kx_file_record){
		.dim = kx_le32_get(in + 12),
		.session = kx_le64_get(in + 16),
		.next_session = kx_le64_get(in + 24),
		.clean = kx_le32_get(in + 32) == 1,
	};
	return KX_OK;
}
