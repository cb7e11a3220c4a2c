/* Asking the index for the moments that are like each: as many as are, so far as it goes. */
#include <stdlib.h>
#include <string.h>

#include "common/learn/learn.h"
#include "shard/query/duplicates_internal.h"
#include "shard/query/moments_index_internal.h"

#define RECALL 0.9
#define DEPTH_FIRST 16u
#define DEPTH_GROWS 8u
#define OWN_MOST 128u /* more of a video's own in the way of others are filtered out */

struct asking {
	struct kx_store *store;
	const struct kx_duplicates_options *options;
	struct kx_dup_set *set;
	float least;
	double recall;
	struct kx_dup_nears *nears;
	uint32_t *moment_at[KX_INDEX_SPACES_MAX]; /* [bound] the moment of each row; UINT32_MAX: of none that counts */
	uint32_t bound[KX_INDEX_SPACES_MAX];
	bool *held;        /* [moments] by the index */
	uint32_t last;     /* video of the row seen last */
	/* Of the video in hand: */
	uint32_t video, next;
	uint32_t space;
	struct kx_index_filter *others; /* all rows but its own; NULL: not made */
	struct kx_index_hits hits;
	float values[KX_DIM_MAX];
};

static void asking_done(struct asking *asking)
{
	for (uint32_t i = 0; i < KX_INDEX_SPACES_MAX; i++)
		free(asking->moment_at[i]);
	free(asking->held);
	kx_index_filter_free(asking->others);
	kx_index_hits_done(&asking->hits);
	free(asking);
}

/* --- Where the moments of the set are ---------------------------------------------------------------------------- */

/* Videos are in the order of their ids; rows of one stand together, mostly. */
static const struct kx_dup_video *find_video(struct asking *asking, const char *id)
{
	const struct kx_dup_set *set = asking->set;
	uint32_t low = 0, high = set->video_count;

	if (asking->last < high && strcmp(set->videos[asking->last].id, id) == 0)
		return &set->videos[asking->last];
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		int order = strcmp(set->videos[middle].id, id);

		if (!order) {
			asking->last = middle;
			return &set->videos[middle];
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

static uint32_t find_moment(const struct kx_dup_set *set, const struct kx_dup_video *video, uint32_t number)
{
	uint32_t low = video->first, high = video->first + video->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (set->index[middle] == number)
			return middle;
		if (set->index[middle] < number)
			low = middle + 1;
		else
			high = middle;
	}
	return UINT32_MAX;
}

static kx_status map_row(void *ctx, uint32_t row, const void *key, size_t key_len, const void *attributes,
			 size_t attributes_len, struct kx_error *error)
{
	struct asking *asking = ctx;
	const struct kx_dup_video *video = NULL;
	struct kx_moment_place place;
	uint32_t moment;

	(void)error;
	if (kx_moment_place_parse(key, key_len, &place))
		video = find_video(asking, place.id);
	if (!video || video->modality != place.modality || attributes_len != KX_MOMENTS_ATTRIBUTES ||
	    kx_be64_get(attributes) != video->generation || row >= asking->bound[asking->space])
		return KX_OK;
	moment = find_moment(asking->set, video, place.number);
	if (moment == UINT32_MAX)
		return KX_OK;
	asking->moment_at[asking->space][row] = moment;
	asking->held[moment] = true;
	return KX_OK;
}

static kx_status map_space(struct asking *asking, uint32_t space, struct kx_error *error)
{
	struct kx_index_space_info info;
	kx_status status = kx_index_space_info(asking->options->index, space, &info, error);

	if (status)
		return status;
	asking->space = space;
	asking->bound[space] = info.rows_bound;
	asking->moment_at[space] = malloc((info.rows_bound + 1u) * sizeof(uint32_t));
	if (!asking->moment_at[space])
		return kx_error_nomem(error);
	memset(asking->moment_at[space], 0xff, info.rows_bound * sizeof(uint32_t));
	return kx_index_each(asking->options->index, space, map_row, asking, error);
}

static kx_status map_all(struct asking *asking, struct kx_error *error)
{
	kx_status status = KX_OK;

	for (uint32_t i = 0; !status && i < kx_index_space_count(asking->options->index); i++)
		if (kx_moments_are_in(asking->options->index, i))
			status = map_space(asking, i, error);
	return status;
}

/* --- Asking ------------------------------------------------------------------------------------------------------ */

/* Many moments of one video that are alike stand in the way of other videos'. */
static kx_status leave_out_own(struct asking *asking, struct kx_error *error)
{
	const uint32_t bound = asking->bound[asking->space], words = bound / 64u + 1u;
	const uint32_t *moment_at = asking->moment_at[asking->space];
	KX_CLEANUP(kx_cleanup_free) uint64_t *bits = calloc(words, sizeof(*bits));

	if (!bits)
		return kx_error_nomem(error);
	for (uint32_t row = 0; row < bound; row++)
		if (moment_at[row] != UINT32_MAX && asking->set->video_of[moment_at[row]] != asking->video)
			bits[row / 64] |= UINT64_C(1) << (row % 64);
	return kx_index_filter_new(asking->options->index, asking->space, bits, bound, &asking->others, error);
}

static kx_status ask(struct asking *asking, uint32_t dim, uint32_t depth, struct kx_error *error)
{
	struct kx_index_query query = {.vector = asking->values, .dim = dim, .k = depth, .recall = asking->recall,
				       .filter = asking->others};

	return kx_index_search(asking->options->index, asking->space, &query, &asking->hits, error);
}

static uint32_t count_own(const struct asking *asking)
{
	uint32_t own = 0;

	for (uint32_t i = 0; i < asking->hits.count; i++) {
		uint32_t row = asking->hits.list[i].row;
		uint32_t moment = row < asking->bound[asking->space] ? asking->moment_at[asking->space][row] : UINT32_MAX;

		own += moment != UINT32_MAX && asking->set->video_of[moment] == asking->video;
	}
	return own;
}

/* Deeper and deeper, until what comes is less alike than it has to be. */
static kx_status ask_near(struct asking *asking, uint32_t dim, struct kx_error *error)
{
	uint32_t depth = DEPTH_FIRST;
	kx_status status;

	for (;;) {
		status = ask(asking, dim, depth, error);
		if (status || asking->hits.count < depth || asking->hits.list[depth - 1].score < asking->least ||
		    depth == KX_INDEX_K_MAX)
			return status;
		if (!asking->others && count_own(asking) > OWN_MOST) {
			status = leave_out_own(asking, error);
			if (status)
				return status;
			continue;
		}
		depth = depth < KX_INDEX_K_MAX / DEPTH_GROWS ? depth * DEPTH_GROWS : KX_INDEX_K_MAX;
	}
}

static kx_status add_near(struct asking *asking, uint32_t moment, struct kx_error *error)
{
	kx_status status = KX_OK;

	for (uint32_t i = 0; !status && i < asking->hits.count; i++) {
		const struct kx_index_hit *hit = &asking->hits.list[i];
		uint32_t other = hit->row < asking->bound[asking->space] ? asking->moment_at[asking->space][hit->row] : UINT32_MAX;

		if (hit->score < asking->least)
			break;
		if (other != UINT32_MAX)
			status = kx_dup_near_add(asking->set, asking->nears, moment, other, error);
	}
	return status;
}

/* The moments come as they were loaded: in order, those of another space and those that point nowhere passed over. */
static kx_status ask_moment(void *ctx, const struct kx_summary *summary, struct kx_error *error)
{
	struct asking *asking = ctx;
	const struct kx_dup_video *video = &asking->set->videos[asking->video];
	uint32_t moment = asking->next;
	kx_status status = KX_OK;

	if (moment == video->first + video->count || summary->modality != video->modality ||
	    asking->set->index[moment] != summary->index || summary->dim != video->dim ||
	    strcmp(summary->space, video->space) != 0)
		return KX_OK;
	asking->next++;
	if (!asking->held[moment] && kx_dup_keep_codes(asking->set, moment, summary))
		return kx_error_nomem(error);
	if (asking->space == KX_INDEX_SPACES_MAX)
		return KX_OK;
	kx_learn_dequantize_i8(summary->embedding, summary->dim, summary->scale, asking->values);
	if (kx_learn_normalize(asking->values, summary->dim) <= 0.0f)
		return KX_OK;
	status = ask_near(asking, summary->dim, error);
	return status ? status : add_near(asking, moment, error);
}

static kx_status ask_video(struct asking *asking, uint32_t number, struct kx_error *error)
{
	const struct kx_dup_video *video = &asking->set->videos[number];

	if (asking->options->stop && kx_stop_asked(asking->options->stop))
		return kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, "stopped");
	asking->video = number;
	asking->next = video->first;
	if (!kx_moments_find_space(asking->options->index, video->modality, video->space, video->dim, &asking->space))
		asking->space = KX_INDEX_SPACES_MAX;
	kx_index_filter_free(asking->others);
	asking->others = NULL;
	return kx_store_each_summary(asking->store, video->id, video->generation, ask_moment, asking, error);
}

static kx_status check_count(const struct asking *asking, struct kx_error *error)
{
	uint32_t lacking = 0;

	for (uint32_t i = 0; i < asking->set->moment_count; i++)
		lacking += !asking->held[i];
	return lacking > KX_DUPLICATES_COMPARED_MAX ? kx_dup_too_many(error) : KX_OK;
}

kx_status kx_dup_ask(struct kx_store *store, const struct kx_duplicates_options *options, struct kx_dup_set *set, float least,
		     struct kx_dup_nears *nears, struct kx_error *error)
{
	struct asking *asking = calloc(1, sizeof(*asking));
	kx_status status;

	if (!asking)
		return kx_error_nomem(error);
	asking->store = store;
	asking->options = options;
	asking->set = set;
	asking->least = least;
	asking->recall = options->recall > 0.0 ? options->recall : RECALL;
	asking->nears = nears;
	asking->held = calloc(set->moment_count + 1u, sizeof(*asking->held));
	status = asking->held ? map_all(asking, error) : kx_error_nomem(error);
	if (!status)
		status = check_count(asking, error);
	for (uint32_t i = 0; !status && i < set->video_count; i++)
		if (set->videos[i].count)
			status = ask_video(asking, i, error);
	asking_done(asking);
	return status;
}
