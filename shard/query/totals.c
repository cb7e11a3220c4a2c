#include "shard/query/totals.h"

#include <stdio.h>
#include <string.h>

#include "common/base/str.h"
#include "shard/index/record.h"

#define FORMAT 1u
#define HEAD 52u /* checksum, format, five numbers, count of spaces */
#define SPACE (16u + KX_SPACE_MAX)

uint64_t kx_totals_mark(const char *id, uint64_t generation)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

	for (const unsigned char *c = (const unsigned char *)id; *c; c++)
		hash = (hash ^ *c) * UINT64_C(0x100000001b3);
	for (int i = 0; i < 8; i++)
		hash = (hash ^ (generation >> (8 * i) & 0xffu)) * UINT64_C(0x100000001b3);
	return hash;
}

uint32_t kx_totals_find_space(const struct kx_totals *totals, enum kx_modality modality, const char *name, uint32_t dim)
{
	for (uint32_t i = 0; i < totals->space_count; i++) {
		const struct kx_totals_space *space = &totals->spaces[i];

		if (space->modality == modality && space->dim == dim && kx_str_eq(space->name, name))
			return i;
	}
	return KX_TOTALS_NO_SPACE;
}

static kx_status space_of(struct kx_totals *totals, const struct kx_modality_result *from, uint32_t *ret)
{
	struct kx_totals_space *space;

	*ret = kx_totals_find_space(totals, from->modality, from->space, from->dim);
	if (*ret != KX_TOTALS_NO_SPACE)
		return KX_OK;
	if (totals->space_count == KX_ANN_SPACES_MAX)
		return KX_ETOOBIG;
	*ret = totals->space_count++;
	space = &totals->spaces[*ret];
	*space = (struct kx_totals_space){.modality = from->modality, .dim = from->dim};
	(void)snprintf(space->name, sizeof(space->name), "%s", from->space);
	return KX_OK;
}

static bool points_nowhere(const struct kx_modality_result *from)
{
	for (uint32_t i = 0; i < from->dim; i++)
		if (from->embedding[i] != 0.0f)
			return false;
	return true;
}

kx_status kx_totals_of_record(struct kx_totals *totals, const struct kx_video_record *record,
			      struct kx_totals_video *ret)
{
	const struct kx_video_result *result = &record->result;
	struct kx_totals_video video = {.space = {KX_TOTALS_NO_SPACE, KX_TOTALS_NO_SPACE}};

	video.media_us = result->visual_us > result->audio_us ? result->visual_us : result->audio_us;
	video.mark = kx_totals_mark(result->video_id, record->generation);
	for (uint32_t i = 0; i < result->modality_count; i++) {
		const struct kx_modality_result *from = &result->modalities[i];

		video.moments += from->moments;
		if (!points_nowhere(from) && space_of(totals, from, &video.space[from->modality - KX_VISUAL]))
			return KX_ETOOBIG;
	}
	*ret = video;
	return KX_OK;
}

void kx_totals_add(struct kx_totals *totals, const struct kx_totals_video *video, int sign)
{
	const uint64_t by = (uint64_t)(int64_t)sign; /* unsigned numbers wrap */

	totals->videos += by;
	totals->moments += by * video->moments;
	totals->media_us += by * video->media_us;
	totals->epoch += by * video->mark;
	totals->loose += video->loose ? by : 0;
	for (int m = 0; m < KX_ANN_MODALITIES; m++)
		if (video->space[m] != KX_TOTALS_NO_SPACE)
			totals->spaces[video->space[m]].rows += by;
	if (video->space[0] != KX_TOTALS_NO_SPACE && video->space[1] != KX_TOTALS_NO_SPACE)
		totals->both[video->space[0]][video->space[1]] += by;
}

/* Whether all that a has in spaces b has, too. */
static bool has_spaces(const struct kx_totals *a, const struct kx_totals *b)
{
	uint32_t in_b[KX_ANN_SPACES_MAX];

	for (uint32_t i = 0; i < a->space_count; i++) {
		const struct kx_totals_space *space = &a->spaces[i];

		in_b[i] = kx_totals_find_space(b, space->modality, space->name, space->dim);
		if (space->rows != (in_b[i] == KX_TOTALS_NO_SPACE ? 0 : b->spaces[in_b[i]].rows))
			return false;
	}
	for (uint32_t i = 0; i < a->space_count; i++)
		for (uint32_t j = 0; j < a->space_count; j++)
			if (a->both[i][j] && a->both[i][j] != b->both[in_b[i]][in_b[j]])
				return false;
	return true;
}

bool kx_totals_are_same(const struct kx_totals *a, const struct kx_totals *b)
{
	return a->videos == b->videos && a->moments == b->moments && a->media_us == b->media_us && a->epoch == b->epoch &&
	       a->loose == b->loose && has_spaces(a, b) && has_spaces(b, a);
}

kx_status kx_totals_encode(const struct kx_totals *totals, struct kx_buf *out)
{
	const uint64_t numbers[5] = {totals->videos, totals->moments, totals->media_us, totals->epoch, totals->loose};
	const uint32_t count = totals->space_count;
	const size_t len = HEAD + count * (size_t)SPACE + (size_t)count * count * 8;
	uint8_t *at;

	if (kx_buf_reserve(out, len))
		return KX_ENOMEM;
	at = out->data + out->len;
	memset(at, 0, len);
	kx_le32_put(at + 4, FORMAT);
	for (int i = 0; i < 5; i++)
		kx_le64_put(at + 8 + 8 * i, numbers[i]);
	kx_le32_put(at + 48, count);
	for (uint32_t i = 0; i < count; i++) {
		uint8_t *space = at + HEAD + i * (size_t)SPACE;

		kx_le32_put(space, (uint32_t)totals->spaces[i].modality);
		kx_le32_put(space + 4, totals->spaces[i].dim);
		kx_le64_put(space + 8, totals->spaces[i].rows);
		memcpy(space + 16, totals->spaces[i].name, KX_SPACE_MAX);
		for (uint32_t j = 0; j < count; j++)
			kx_le64_put(at + HEAD + count * (size_t)SPACE + ((size_t)i * count + j) * 8, totals->both[i][j]);
	}
	kx_le32_put(at, kx_crc32c(0, at + 4, len - 4));
	out->len += len;
	return KX_OK;
}

static kx_status decode_spaces(const uint8_t *at, struct kx_totals *ret)
{
	const uint32_t count = ret->space_count;

	for (uint32_t i = 0; i < count; i++) {
		const uint8_t *from = at + i * (size_t)SPACE;
		struct kx_totals_space *space = &ret->spaces[i];

		space->modality = (enum kx_modality)kx_le32_get(from);
		space->dim = kx_le32_get(from + 4);
		space->rows = kx_le64_get(from + 8);
		memcpy(space->name, from + 16, KX_SPACE_MAX);
		if ((space->modality != KX_VISUAL && space->modality != KX_AUDIO) || !space->dim || space->dim > KX_DIM_MAX ||
		    space->rows > ret->videos || space->name[KX_SPACE_MAX - 1])
			return KX_ECORRUPT;
		for (uint32_t j = 0; j < count; j++)
			ret->both[i][j] = kx_le64_get(at + count * (size_t)SPACE + ((size_t)i * count + j) * 8);
	}
	return KX_OK;
}

kx_status kx_totals_decode(const void *bytes, size_t len, struct kx_totals *ret)
{
	const uint8_t *at = bytes;
	uint32_t count;

	if (len < HEAD || kx_le32_get(at) != kx_crc32c(0, at + 4, len - 4))
		return KX_ECORRUPT;
	if (kx_le32_get(at + 4) != FORMAT)
		return KX_EVERSION;
	count = kx_le32_get(at + 48);
	if (count > KX_ANN_SPACES_MAX || len != HEAD + count * (size_t)SPACE + (size_t)count * count * 8)
		return KX_ECORRUPT;
	*ret = (struct kx_totals){
		.videos = kx_le64_get(at + 8),
		.moments = kx_le64_get(at + 16),
		.media_us = kx_le64_get(at + 24),
		.epoch = kx_le64_get(at + 32),
		.loose = kx_le64_get(at + 40),
		.space_count = count,
	};
	return ret->loose > ret->videos ? KX_ECORRUPT : decode_spaces(at + HEAD, ret);
}
