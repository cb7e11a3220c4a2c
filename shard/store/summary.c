#include "shard/store/summary.h"

#include <endian.h>
#include <math.h>
#include <string.h>

#include "common/base/hash.h"

#define SUMMARY_VERSION 1

/* What stands first, all little-endian. Then: space, class ids, class scores, embedding. */
struct head {
	uint8_t version;
	uint8_t modality;
	uint8_t class_count;
	uint8_t space_len;
	uint32_t index;
	uint32_t count;
	uint32_t dim;
	uint32_t moment_bytes;
	uint32_t scale;
	uint8_t digest[KX_SUMMARY_DIGEST];
};
_Static_assert(sizeof(struct head) == 24 + KX_SUMMARY_DIGEST, "no padding: it is written as it stands");

kx_status kx_summary_of(const struct kx_moment *moment, const void *bytes, size_t len, struct kx_summary *ret)
{
	uint8_t sha[KX_SHA256_LEN];
	kx_status status = kx_sha256_bytes(bytes, len, sha);

	if (status)
		return status;
	ret->modality = moment->modality;
	ret->index = moment->index;
	ret->count = moment->count;
	ret->dim = moment->dim;
	ret->moment_bytes = (uint32_t)len;
	memcpy(ret->digest, sha, sizeof(ret->digest));
	memset(ret->space, 0, sizeof(ret->space));
	strncpy(ret->space, moment->space, sizeof(ret->space) - 1);
	ret->scale = moment->embedding_scale;
	ret->class_count = moment->class_count;
	if (moment->class_count) {
		memcpy(ret->class_ids, moment->class_ids, moment->class_count * sizeof(ret->class_ids[0]));
		memcpy(ret->class_scores, moment->class_scores, moment->class_count * sizeof(ret->class_scores[0]));
	}
	memcpy(ret->embedding, moment->embedding, moment->dim);
	return KX_OK;
}

static uint32_t float_bits(float value)
{
	uint32_t bits;

	memcpy(&bits, &value, sizeof(bits));
	return htole32(bits);
}

static float bits_float(uint32_t bits)
{
	float value;

	bits = le32toh(bits);
	memcpy(&value, &bits, sizeof(value));
	return value;
}

kx_status kx_summary_pack(const struct kx_summary *summary, struct kx_buf *out)
{
	uint32_t ids[KX_CLASSES_MAX], scores[KX_CLASSES_MAX];
	struct head head = {
		.version = SUMMARY_VERSION,
		.modality = (uint8_t)summary->modality,
		.class_count = (uint8_t)summary->class_count,
		.space_len = (uint8_t)strlen(summary->space),
		.index = htole32(summary->index),
		.count = htole32(summary->count),
		.dim = htole32(summary->dim),
		.moment_bytes = htole32(summary->moment_bytes),
		.scale = float_bits(summary->scale),
	};
	size_t classes = summary->class_count * sizeof(ids[0]);
	kx_status status = kx_buf_reserve(out, sizeof(head) + head.space_len + 2 * classes + summary->dim);

	for (uint32_t i = 0; i < summary->class_count; i++) {
		ids[i] = htole32(summary->class_ids[i]);
		scores[i] = float_bits(summary->class_scores[i]);
	}
	memcpy(head.digest, summary->digest, sizeof(head.digest));
	if (!status)
		status = kx_buf_append(out, &head, sizeof(head));
	if (!status)
		status = kx_buf_append(out, summary->space, head.space_len);
	if (!status && classes)
		status = kx_buf_append(out, ids, classes);
	if (!status && classes)
		status = kx_buf_append(out, scores, classes);
	if (!status)
		status = kx_buf_append(out, summary->embedding, summary->dim);
	return status;
}

static kx_status corrupt(struct kx_error *error, const char *what)
{
	return kx_error_set(error, KX_ECORRUPT, KX_ERROR_POISON, "moment summary: %s", what);
}

static kx_status read_head(const void *bytes, size_t len, struct head *head, struct kx_error *error)
{
	if (len < sizeof(*head))
		return corrupt(error, "cut short");
	memcpy(head, bytes, sizeof(*head));
	if (head->version != SUMMARY_VERSION)
		return kx_error_set(error, KX_EVERSION, KX_ERROR_POISON,
				    "moment summary: version %u, this program reads %d", head->version, SUMMARY_VERSION);
	if (head->modality != KX_VISUAL && head->modality != KX_AUDIO)
		return corrupt(error, "no such modality");
	if (head->class_count > KX_CLASSES_MAX || !head->space_len || head->space_len >= KX_SPACE_MAX)
		return corrupt(error, "a length out of range");
	head->dim = le32toh(head->dim);
	head->count = le32toh(head->count);
	if (!head->dim || head->dim > KX_DIM_MAX || !head->count || head->count > KX_MOMENT_ROWS_MAX)
		return corrupt(error, "a count out of range");
	if (len != sizeof(*head) + head->space_len + 8u * head->class_count + head->dim)
		return corrupt(error, "its lengths don't add up");
	return KX_OK;
}

static kx_status read_classes(const uint8_t *at, struct kx_summary *ret, struct kx_error *error)
{
	memcpy(ret->class_ids, at, ret->class_count * sizeof(ret->class_ids[0]));
	memcpy(ret->class_scores, at + ret->class_count * sizeof(ret->class_ids[0]),
	       ret->class_count * sizeof(ret->class_scores[0]));
	for (uint32_t i = 0; i < ret->class_count; i++) {
		uint32_t bits;

		memcpy(&bits, &ret->class_scores[i], sizeof(bits));
		ret->class_ids[i] = le32toh(ret->class_ids[i]);
		ret->class_scores[i] = bits_float(bits);
		if (!(ret->class_scores[i] >= 0.0f && ret->class_scores[i] <= 1.0f))
			return corrupt(error, "a class score out of range");
	}
	return KX_OK;
}

kx_status kx_summary_unpack(const void *bytes, size_t len, struct kx_summary *ret, struct kx_error *error)
{
	const uint8_t *at = bytes;
	struct head head = {0};
	kx_status status = read_head(bytes, len, &head, error);

	if (status)
		return status;
	ret->modality = (enum kx_modality)head.modality;
	ret->index = le32toh(head.index);
	ret->count = head.count;
	ret->dim = head.dim;
	ret->moment_bytes = le32toh(head.moment_bytes);
	memcpy(ret->digest, head.digest, sizeof(ret->digest));
	ret->scale = bits_float(head.scale);
	if (!isfinite(ret->scale) || ret->scale < 0.0f)
		return corrupt(error, "a scale out of range");
	at += sizeof(head);
	memset(ret->space, 0, sizeof(ret->space));
	memcpy(ret->space, at, head.space_len);
	if (strlen(ret->space) != head.space_len)
		return corrupt(error, "a space with a zero byte");
	at += head.space_len;
	ret->class_count = head.class_count;
	status = read_classes(at, ret, error);
	memcpy(ret->embedding, at + 8u * head.class_count, ret->dim);
	return status;
}
