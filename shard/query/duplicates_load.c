/* Moments into memory: of those that the index has where they are, of the others their codes. */
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "shard/query/duplicates_internal.h"

void kx_dup_set_done(struct kx_dup_set *set)
{
	for (uint32_t i = 0; i < set->video_count; i++)
		free(set->videos[i].id);
	for (uint32_t i = 0; i < set->moment_count; i++)
		free(set->codes[i]);
	free(set->videos);
	free(set->video_of);
	free(set->index);
	free(set->scale);
	free(set->codes);
	*set = (struct kx_dup_set){0};
}

struct loading {
	struct kx_store *store;
	struct kx_dup_set *set;
	const struct kx_duplicates_options *options;
};

static kx_status grow(void *array, size_t size, size_t count)
{
	void **at = array, *grown = realloc(*at, size * count);

	if (!grown)
		return KX_ENOMEM;
	*at = grown;
	return KX_OK;
}

static kx_status moments_reserve(struct kx_dup_set *set)
{
	uint32_t cap = set->moment_cap ? set->moment_cap * 2 : 1024;

	if (set->moment_count < set->moment_cap)
		return KX_OK;
	if (grow(&set->video_of, sizeof(uint32_t), cap) || grow(&set->index, sizeof(uint32_t), cap) ||
	    grow(&set->scale, sizeof(float), cap) || grow(&set->codes, sizeof(int8_t *), cap))
		return KX_ENOMEM;
	set->moment_cap = cap;
	return KX_OK;
}

kx_status kx_dup_keep_codes(struct kx_dup_set *set, uint32_t moment, const struct kx_summary *summary)
{
	set->codes[moment] = malloc(summary->dim);
	if (!set->codes[moment])
		return KX_ENOMEM;
	memcpy(set->codes[moment], summary->embedding, summary->dim);
	return KX_OK;
}

kx_status kx_dup_too_many(struct kx_error *error)
{
	return kx_error_set(error, KX_ETOOBIG, KX_ERROR_POISON,
			    "more than %u moments that are not in the index: that many are not compared with one another; kinodex "
			    "index or shard puts them in, unless --moments-index off says not to",
			    KX_DUPLICATES_COMPARED_MAX);
}

/* The last video of the set is being loaded. */
static kx_status add_moment(void *ctx, const struct kx_summary *summary, struct kx_error *error)
{
	const struct kx_duplicates_options *options = ((struct loading *)ctx)->options;
	struct kx_dup_set *set = ((struct loading *)ctx)->set;
	struct kx_dup_video *video = &set->videos[set->video_count - 1];
	uint32_t at = set->moment_count;

	if (summary->modality != video->modality || summary->dim != video->dim || strcmp(summary->space, video->space) != 0 ||
	    summary->scale <= 0.0f)
		return KX_OK;
	if (at == KX_DUPLICATES_MOMENTS_MAX)
		return kx_error_set(error, KX_ETOOBIG, KX_ERROR_POISON, "more than %u moments: near-duplicates are not looked for",
				    KX_DUPLICATES_MOMENTS_MAX);
	if (!options->index && at == KX_DUPLICATES_COMPARED_MAX)
		return kx_dup_too_many(error);
	if (moments_reserve(set))
		return kx_error_nomem(error);
	set->codes[at] = NULL;
	if (!options->index && kx_dup_keep_codes(set, at, summary))
		return kx_error_nomem(error);
	set->scale[at] = summary->scale;
	set->index[at] = summary->index;
	set->video_of[at] = set->video_count - 1;
	set->moment_count++;
	video->count++;
	return KX_OK;
}

static kx_status add_video(void *ctx, const struct kx_video_record *record, struct kx_error *error)
{
	struct loading *loading = ctx;
	struct kx_dup_set *set = loading->set;
	const struct kx_modality_result *part = &record->result.modalities[0]; /* visual first */
	struct kx_dup_video *video;

	if (loading->options->stop && kx_stop_asked(loading->options->stop))
		return kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, "stopped");
	if (set->video_count == set->video_cap) {
		uint32_t cap = set->video_cap ? set->video_cap * 2 : 256;

		if (grow(&set->videos, sizeof(*set->videos), cap))
			return kx_error_nomem(error);
		set->video_cap = cap;
	}
	video = &set->videos[set->video_count];
	*video = (struct kx_dup_video){.id = kx_strdup(record->result.video_id),
				    .generation = record->generation,
				    .duration_us = record->result.duration_us,
				    .moment_us = record->result.moment_us,
				    .modality = part->modality,
				    .dim = part->dim,
				    .first = set->moment_count};
	if (!video->id)
		return kx_error_nomem(error);
	strncpy(video->space, part->space, sizeof(video->space) - 1);
	set->video_count++;
	return kx_store_each_summary(loading->store, record->result.video_id, record->generation, add_moment, loading, error);
}

kx_status kx_dup_load(struct kx_store *store, const struct kx_duplicates_options *options, struct kx_dup_set *set,
		   struct kx_error *error)
{
	struct loading loading = {store, set, options};

	return kx_store_each_video(store, add_video, &loading, error);
}

