#include "shard/store/merge.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/learn/learn.h"

struct class_sum {
	uint32_t id;
	double sum;
};

struct part {
	char space[KX_SPACE_MAX];
	uint32_t moments;
	uint32_t rows;
	uint32_t dim;
	uint32_t last_index;
	float embedding[KX_DIM_MAX];
	struct class_sum *classes; /* by rising id */
	size_t class_count, class_cap;
	uint32_t best_ids[KX_MERGE_CLASSES];
	float best_scores[KX_MERGE_CLASSES];
};

struct kx_merge {
	struct part parts[2]; /* visual, audio */
	float vector[KX_DIM_MAX];
};

kx_status kx_merge_new(struct kx_merge **ret)
{
	struct kx_merge *merge = calloc(1, sizeof(*merge));

	if (!merge)
		return KX_ENOMEM;
	*ret = merge;
	return KX_OK;
}

void kx_merge_free(struct kx_merge *merge)
{
	if (!merge)
		return;
	free(merge->parts[0].classes);
	free(merge->parts[1].classes);
	free(merge);
}

void kx_merge_cleanup(struct kx_merge **merge)
{
	kx_merge_free(*merge);
	*merge = NULL;
}

/* Index of the first sum whose id is not below `id`. */
static size_t class_lower_bound(const struct part *part, uint32_t id)
{
	size_t from = 0, to = part->class_count;

	while (from < to) {
		size_t mid = from + (to - from) / 2;

		if (part->classes[mid].id < id)
			from = mid + 1;
		else
			to = mid;
	}
	return from;
}

static kx_status class_reserve(struct part *part)
{
	size_t cap = part->class_cap ? part->class_cap * 2 : 64;
	struct class_sum *classes;

	if (part->class_count < part->class_cap)
		return KX_OK;
	if (cap > KX_MERGE_CLASSES_SEEN_MAX)
		return KX_ETOOBIG;
	classes = realloc(part->classes, cap * sizeof(*classes));
	if (!classes)
		return KX_ENOMEM;
	part->classes = classes;
	part->class_cap = cap;
	return KX_OK;
}

static kx_status add_class(struct part *part, uint32_t id, double score)
{
	size_t at = class_lower_bound(part, id);
	kx_status status;

	if (at == part->class_count || part->classes[at].id != id) {
		status = class_reserve(part);
		if (status)
			return status;
		memmove(part->classes + at + 1, part->classes + at,
			(part->class_count - at) * sizeof(part->classes[0]));
		part->classes[at] = (struct class_sum){.id = id};
		part->class_count++;
	}
	part->classes[at].sum += score;
	return KX_OK;
}

static kx_status check_moment(const struct kx_merge *merge, const struct kx_summary *moment, struct kx_error *error)
{
	const struct part *part = &merge->parts[moment->modality - KX_VISUAL];
	const char *name = kx_modality_name(moment->modality);

	if (moment->modality == KX_VISUAL && merge->parts[1].moments)
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_POISON, "a visual moment after an audio one");
	if (!part->moments)
		return KX_OK;
	if (moment->index <= part->last_index)
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_POISON, "%s moment %" PRIu32 " after %" PRIu32, name,
				    moment->index, part->last_index);
	if (strcmp(moment->space, part->space) != 0 || moment->dim != part->dim)
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_POISON,
				    "%s moment %" PRIu32 " is in space %s (%" PRIu32 " dimensions), "
				    "those before it in %s (%" PRIu32 ")",
				    name, moment->index, moment->space, moment->dim, part->space, part->dim);
	return KX_OK;
}

kx_status kx_merge_add(struct kx_merge *merge, const struct kx_summary *moment, struct kx_error *error)
{
	struct part *part = &merge->parts[moment->modality - KX_VISUAL];
	kx_status status = check_moment(merge, moment, error);

	if (status)
		return status;
	if (!part->moments) {
		memcpy(part->space, moment->space, sizeof(part->space));
		part->dim = moment->dim;
	}
	part->moments++;
	part->rows += moment->count;
	part->last_index = moment->index;
	kx_learn_dequantize_i8(moment->embedding, moment->dim, moment->scale, merge->vector);
	kx_learn_accumulate(part->embedding, merge->vector, moment->dim, (float)moment->count);
	for (uint32_t i = 0; i < moment->class_count; i++) {
		status = add_class(part, moment->class_ids[i], (double)moment->class_scores[i] * moment->count);
		if (status == KX_ENOMEM)
			return kx_error_nomem(error);
		if (status)
			return kx_error_set(error, status, KX_ERROR_POISON, "more than %u different %s classes",
					    KX_MERGE_CLASSES_SEEN_MAX, kx_modality_name(moment->modality));
	}
	return KX_OK;
}

static int compare_sums(const void *a, const void *b)
{
	const struct class_sum *one = a, *two = b;

	if (one->sum != two->sum)
		return one->sum > two->sum ? -1 : 1;
	return (one->id > two->id) - (one->id < two->id);
}

static kx_status best_classes(struct part *part, uint32_t *ret_count)
{
	size_t bytes = part->class_count * sizeof(part->classes[0]);
	uint32_t count = part->class_count < KX_MERGE_CLASSES ? (uint32_t)part->class_count : KX_MERGE_CLASSES;
	KX_CLEANUP(kx_cleanup_free) struct class_sum *sorted = NULL;

	*ret_count = count;
	if (!count)
		return KX_OK;
	sorted = malloc(bytes);
	if (!sorted)
		return KX_ENOMEM;
	memcpy(sorted, part->classes, bytes);
	qsort(sorted, part->class_count, sizeof(*sorted), compare_sums);
	for (uint32_t i = 0; i < count; i++) {
		double mean = sorted[i].sum / part->rows;

		part->best_ids[i] = sorted[i].id;
		part->best_scores[i] = mean < 1.0 ? (float)mean : 1.0f; /* the sum's rounding must not leave [0, 1] */
	}
	return KX_OK;
}

kx_status kx_merge_modalities(struct kx_merge *merge, struct kx_modality_result ret[2], uint32_t *ret_count,
			      struct kx_error *error)
{
	uint32_t count = 0;

	for (int i = 0; i < 2; i++) {
		struct part *part = &merge->parts[i];
		uint32_t classes = 0;

		if (!part->moments)
			continue;
		if (best_classes(part, &classes))
			return kx_error_nomem(error);
		(void)kx_learn_normalize(part->embedding, part->dim);
		ret[count++] = (struct kx_modality_result){
			.modality = i == 0 ? KX_VISUAL : KX_AUDIO,
			.space = part->space,
			.moments = part->moments,
			.rows = part->rows,
			.dim = part->dim,
			.embedding = part->embedding,
			.class_count = classes,
			.class_ids = part->best_ids,
			.class_scores = part->best_scores,
		};
	}
	*ret_count = count;
	return KX_OK;
}

static kx_status check_rows(const char *what, uint32_t have, uint64_t want, struct kx_error *error)
{
	if (have == want)
		return KX_OK;
	if (have < want)
		return kx_error_set(error, KX_EAGAIN, KX_ERROR_RETRY, "%" PRIu32 " of %" PRIu64 " %s are here", have,
				    want, what);
	return kx_error_set(error, KX_ECORRUPT, KX_ERROR_POISON, "%" PRIu32 " %s are here, its parts say %" PRIu64, have,
			    what, want);
}

/* So that every time in it can be said. */
static kx_status check_last_moments(const struct kx_merge *merge, uint64_t moment_us, struct kx_error *error)
{
	for (int i = 0; i < 2; i++)
		if (merge->parts[i].last_index > KX_MEDIA_US_MAX / moment_us)
			return kx_error_set(error, KX_ECORRUPT, KX_ERROR_POISON,
					    "%s moment %" PRIu32 " is later than any video is long",
					    kx_modality_name(i == 0 ? KX_VISUAL : KX_AUDIO), merge->parts[i].last_index);
	return KX_OK;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static kx_status add_part_ends(const struct kx_merge_source *source, struct kx_video_result *video,
			       uint64_t *ret_frames, uint64_t *ret_patches, struct kx_error *error)
{
	*ret_frames = *ret_patches = 0;
	video->decode_mode = source->ends[0].decode_mode;
	video->decode_tolerance_us = source->ends[0].decode_tolerance_us;
	video->moment_us = source->ends[0].moment_us;
	for (uint32_t i = 0; i < source->end_count; i++) {
		const struct kx_part_end *end = &source->ends[i];

		if (memcmp(end->recipe_sha256, video->recipe_sha256, KX_SHA_LEN) != 0 ||
		    end->decode_mode != video->decode_mode || end->decode_tolerance_us != video->decode_tolerance_us)
			return kx_error_set(error, KX_ECORRUPT, KX_ERROR_POISON,
					    "part %" PRIu32 " was made by another recipe than the plan asks for",
					    end->part);
		if (end->moment_us != video->moment_us)
			return kx_error_set(error, KX_ECORRUPT, KX_ERROR_POISON,
					    "part %" PRIu32 " has moments of another length than part %" PRIu32, end->part,
					    source->ends[0].part);
		*ret_frames += end->frames;
		*ret_patches += end->patches;
		video->visual_us += end->visual_us;
		video->audio_us += end->audio_us;
		video->truncated |= end->truncated;
		video->max_time_error_us = max_u64(video->max_time_error_us, end->max_time_error_us);
	}
	return KX_OK;
}

kx_status kx_merge_video(struct kx_merge *merge, const struct kx_merge_source *source, struct kx_video_result *ret,
			 struct kx_error *error)
{
	struct kx_video_result video = {0};
	uint64_t frames, patches;
	kx_status status;

	memcpy(video.recipe_sha256, source->info->recipe_sha256, KX_SHA_LEN);
	status = add_part_ends(source, &video, &frames, &patches, error);
	if (!status)
		status = check_rows("frames", merge->parts[0].rows, frames, error);
	if (!status)
		status = check_rows("audio patches", merge->parts[1].rows, patches, error);
	if (!status)
		status = check_last_moments(merge, video.moment_us, error);
	if (!status)
		status = kx_merge_modalities(merge, video.modalities, &video.modality_count, error);
	if (status)
		return status;
	if (!video.modality_count)
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_POISON,
				    "its parts say that it has neither picture nor sound");
	/* Where the container does not say how long it is, what was presented does. */
	video.duration_us = source->info->duration_us ? source->info->duration_us
						      : max_u64(video.visual_us, video.audio_us);
	video.video_id = (char *)(uintptr_t)source->video_id; /* a view: packing only reads it */
	*ret = video;
	return KX_OK;
}
