#include "common/record/cursor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"

#define CURSOR_VERSION 1u
#define HEAD_BYTES 33u /* version, fingerprint, epoch, score, moment_us */
#define SUM_BYTES 4u

/* FNV-1a (Fowler, Noll, Vo): short, and the same everywhere. */
#define FNV_BASIS UINT64_C(0xcbf29ce484222325)
#define FNV_PRIME UINT64_C(0x100000001b3)

static uint64_t add_bytes(uint64_t hash, const void *bytes, size_t len)
{
	const uint8_t *at = bytes;

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ at[i]) * FNV_PRIME;
	return hash;
}

static void put_u64(uint8_t *to, uint64_t value)
{
	for (int i = 0; i < 8; i++)
		to[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get_u64(const uint8_t *from)
{
	uint64_t value = 0;

	for (int i = 0; i < 8; i++)
		value |= (uint64_t)from[i] << (8 * i);
	return value;
}

static uint64_t double_bits(double value)
{
	uint64_t bits;

	memcpy(&bits, &value, sizeof(bits));
	return bits;
}

static uint64_t add_u64(uint64_t hash, uint64_t value)
{
	uint8_t bytes[8];

	put_u64(bytes, value);
	return add_bytes(hash, bytes, sizeof(bytes));
}

static uint64_t add_text(uint64_t hash, const char *text)
{
	size_t len = text != NULL ? strlen(text) : 0;

	return add_bytes(add_u64(hash, len), text, len);
}

static uint64_t add_vector(uint64_t hash, const struct kx_query_vector *vector)
{
	hash = add_text(add_u64(hash, vector->modality), vector->space);
	hash = add_u64(hash, vector->dim);
	for (uint32_t i = 0; i < vector->dim; i++)
		hash = add_u64(hash, double_bits((double)vector->values[i]));
	return hash;
}

uint64_t kx_similar_query_fingerprint(const struct kx_similar_query *query)
{
	uint64_t hash = add_text(FNV_BASIS, query->video_id);

	hash = add_u64(hash, query->vector_count);
	for (uint32_t i = 0; i < query->vector_count; i++)
		hash = add_vector(hash, &query->vectors[i]);
	hash = add_u64(hash, double_bits(query->weight_visual));
	hash = add_u64(hash, double_bits(query->weight_audio));
	hash = add_text(hash, query->filter);
	hash = add_u64(hash, query->has_min_score ? double_bits(query->min_score) : 0);
	hash = add_u64(hash, (uint64_t)query->group);
	hash = add_u64(hash, double_bits(query->diversity));
	hash = add_u64(hash, query->not_id_count);
	for (uint32_t i = 0; i < query->not_id_count; i++)
		hash = add_text(hash, query->not_ids[i]);
	return add_u64(hash, (uint64_t)query->level);
}

static uint32_t checksum(const uint8_t *bytes, size_t len)
{
	uint64_t hash = add_bytes(FNV_BASIS, bytes, len);

	return (uint32_t)(hash ^ (hash >> 32));
}

char *kx_cursor_encode(const struct kx_cursor *cursor)
{
	size_t id_len = strlen(cursor->video_id), len = HEAD_BYTES + id_len + SUM_BYTES;
	KX_CLEANUP(kx_cleanup_free) uint8_t *bytes = malloc(len);
	char *text = malloc(2 * len + 1);
	uint32_t sum;

	if (bytes == NULL || text == NULL) {
		free(text);
		return NULL;
	}
	bytes[0] = CURSOR_VERSION;
	put_u64(bytes + 1, cursor->fingerprint);
	put_u64(bytes + 9, cursor->epoch);
	put_u64(bytes + 17, double_bits(cursor->score));
	put_u64(bytes + 25, cursor->moment_us);
	memcpy(bytes + HEAD_BYTES, cursor->video_id, id_len);
	sum = checksum(bytes, len - SUM_BYTES);
	for (size_t i = 0; i < SUM_BYTES; i++)
		bytes[len - SUM_BYTES + i] = (uint8_t)(sum >> (8 * i));
	kx_hex_encode(bytes, len, text);
	return text;
}

static kx_status no_cursor(struct kx_error *error)
{
	return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
			    "the cursor is none that an answer gave: pass \"next\" of the page before as it was, or leave "
			    "it out to begin again");
}

/* bytes: [len], checked as far as their sum goes. */
static kx_status cursor_parse(const uint8_t *bytes, size_t len, struct kx_cursor *out)
{
	uint64_t bits = get_u64(bytes + 17);

	out->fingerprint = get_u64(bytes + 1);
	out->epoch = get_u64(bytes + 9);
	memcpy(&out->score, &bits, sizeof(bits));
	out->moment_us = get_u64(bytes + 25);
	if (bytes[0] != CURSOR_VERSION || !isfinite(out->score) || memchr(bytes + HEAD_BYTES, 0, len - HEAD_BYTES - SUM_BYTES))
		return KX_EINVAL;
	out->video_id = kx_strndup((const char *)bytes + HEAD_BYTES, len - HEAD_BYTES - SUM_BYTES);
	return out->video_id != NULL ? KX_OK : KX_ENOMEM;
}

kx_status kx_cursor_decode(const char *text, uint64_t fingerprint, struct kx_cursor *ret, struct kx_error *error)
{
	size_t len = strlen(text) / 2;
	KX_CLEANUP(kx_cleanup_free) uint8_t *bytes = NULL;
	struct kx_cursor cursor = {0};
	uint32_t sum = 0;
	kx_status status;

	if (strlen(text) % 2 != 0 || len <= HEAD_BYTES + SUM_BYTES || len > KX_QUERY_CURSOR_MAX / 2)
		return no_cursor(error);
	bytes = malloc(len);
	if (bytes == NULL)
		return kx_error_nomem(error);
	if (kx_hex_decode(text, bytes, len) != KX_OK)
		return no_cursor(error);
	for (size_t i = 0; i < SUM_BYTES; i++)
		sum |= (uint32_t)bytes[len - SUM_BYTES + i] << (8 * i);
	if (sum != checksum(bytes, len - SUM_BYTES))
		return no_cursor(error);
	status = cursor_parse(bytes, len, &cursor);
	if (status == KX_ENOMEM)
		return kx_error_nomem(error);
	if (status != KX_OK)
		return no_cursor(error);
	if (cursor.fingerprint != fingerprint) {
		kx_cursor_done(&cursor);
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
				    "the cursor belongs to another query: keep query, filter, weights, group, level and "
				    "what is left out the same from page to page");
	}
	*ret = cursor;
	return KX_OK;
}

void kx_cursor_done(struct kx_cursor *cursor)
{
	free(cursor->video_id);
	*cursor = (struct kx_cursor){0};
}

int kx_hit_order(double score_a, const char *id_a, uint64_t moment_a, double score_b, const char *id_b,
		 uint64_t moment_b)
{
	int order;

	if (score_a != score_b)
		return score_a > score_b ? -1 : 1;
	order = strcmp(id_a, id_b);
	if (order != 0)
		return order;
	return (moment_a > moment_b) - (moment_a < moment_b);
}
