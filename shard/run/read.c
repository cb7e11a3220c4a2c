/* Reading a whole store without a shard: verify and export. Both see it as it was when they opened it. */
#include <stdlib.h>
#include <string.h>

#include "shard/query/totals.h"
#include "shard/query/moments_index.h"
#include "shard/run/index.h"
#include "shard/run/shard.h"

#define ALIKE 0.999 /* cosine of a vector and of its halves of floats: more */

static kx_status open_to_read(const char *data_dir, struct kx_store **ret, struct kx_error *error)
{
	return kx_shard_store_open(data_dir, true, ret, error);
}

/* Counts what the index holds of the records, and what these add up to. */
struct matching {
	struct kx_store *store;
	struct kx_index *index;
	bool with_moments; /* the index is meant to hold them */
	uint64_t held, missing;
	struct kx_totals totals;
};

static kx_status match_vector(struct matching *matching, const struct kx_video_record *video,
			      const struct kx_modality_result *from, struct kx_error *error)
{
	enum kx_indexed_state state;
	double cosine = 0.0;
	kx_status status = kx_indexed_compare(matching->index, video, from, &state, &cosine, error);

	if (status)
		return status;
	if (state == KX_INDEXED_HELD && cosine < ALIKE)
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL,
				    "index: the %s vector of %s is not that of its record (cosine %.3f)",
				    kx_modality_name(from->modality), video->result.video_id, cosine);
	matching->held += state == KX_INDEXED_HELD;
	matching->missing += state == KX_INDEXED_MISSING;
	return KX_OK;
}

static kx_status match_moments(struct matching *matching, const struct kx_video_record *video, struct kx_error *error)
{
	struct kx_moments_compared compared;
	kx_status status = kx_moments_compare(matching->index, matching->store, video, &compared, error);

	if (status)
		return status;
	if (compared.least_cosine < ALIKE)
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL,
				    "index: the vector of a moment of %s is not that of its record (cosine %.3f)",
				    video->result.video_id, compared.least_cosine);
	matching->held += compared.held;
	matching->missing += compared.missing;
	return KX_OK;
}

static kx_status match_video(void *ctx, const struct kx_video_record *video, struct kx_error *error)
{
	struct matching *matching = ctx;
	struct kx_totals_video share;
	uint64_t missing = matching->missing;
	kx_status status = KX_OK;

	for (uint32_t i = 0; !status && i < video->result.modality_count; i++)
		status = match_vector(matching, video, &video->result.modalities[i], error);
	if (!status && kx_totals_of_record(&matching->totals, video, &share))
		status = kx_error_set(error, KX_ETOOBIG, KX_ERROR_FATAL, "more than %d embedding spaces in one shard",
				      KX_ANN_SPACES_MAX);
	if (status)
		return status;
	share.loose = matching->missing > missing || !kx_indexed_takes(matching->index, video);
	kx_totals_add(&matching->totals, &share, 1);
	return matching->with_moments ? match_moments(matching, video, error) : KX_OK;
}

/* None are a state, too: of a shard that was killed between two parts of a batch. */
static kx_status verify_totals(struct kx_store *store, const struct kx_totals *should, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) struct kx_totals *are = malloc(sizeof(*are));
	struct kx_buf bytes = {.max = SIZE_MAX / 2};
	kx_status status = are ? kx_store_totals(store, &bytes, error) : kx_error_nomem(error);

	if (!status && kx_totals_decode(bytes.data, bytes.len, are))
		status = kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "the totals of the store do not read back");
	if (!status && !kx_totals_are_same(are, should))
		status = kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL,
				      "the totals of the store are not its records': %llu videos of %llu, %llu moments of %llu",
				      (unsigned long long)are->videos, (unsigned long long)should->videos,
				      (unsigned long long)are->moments, (unsigned long long)should->moments);
	kx_buf_done(&bytes);
	return status == KX_ENOTFOUND ? KX_OK : status;
}

static uint64_t count_moments(struct kx_index *index)
{
	uint64_t count = 0;

	for (uint32_t i = 0; i < kx_index_space_count(index); i++) {
		struct kx_index_space_info info;

		if (kx_moments_are_in(index, i) && !kx_index_space_info(index, i, &info, NULL))
			count += info.rows;
	}
	return count;
}

/* What is in the records and not in the index, or the other way round, is what a killed shard leaves between two parts of
 * a batch: the next that writes mends it. Damage is told as such. */
static kx_status verify_index(struct kx_store *store, const char *data_dir, struct kx_shard_verify *ret,
			      struct kx_error *error)
{
	KX_CLEANUP(kx_index_cleanup) struct kx_index *index = NULL;
	struct kx_index_report report = {0};
	KX_CLEANUP(kx_cleanup_free) struct matching *matching = calloc(1, sizeof(*matching));
	kx_status status = kx_shard_index_open(store, data_dir, true, true, 0, &index, error);

	if (status || !index)
		return status;
	status = kx_index_verify(index, &report, error);
	if (!status && report.faults)
		status = kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "index: %llu faults; the first: %s",
				      (unsigned long long)report.faults, report.first);
	if (!status && !matching)
		status = kx_error_nomem(error);
	if (status)
		return status;
	matching->store = store;
	matching->index = index;
	ret->index_moments = count_moments(index);
	matching->with_moments = ret->index_moments; /* a shard that does without them leaves none */
	status = kx_store_each_video(store, match_video, matching, error);
	if (!status)
		status = verify_totals(store, &matching->totals, error);
	if (status)
		return status;
	ret->index_rows = report.rows;
	ret->index_cells = report.cells;
	ret->index_missing = matching->missing;
	ret->index_extra = report.rows - matching->held;
	return KX_OK;
}

kx_status kx_shard_verify(const char *data_dir, struct kx_shard_verify *ret, struct kx_error *error)
{
	KX_CLEANUP(kx_store_cleanup) struct kx_store *store = NULL;
	struct kx_store_audit audit;
	struct kx_shard_verify proved = {0};
	kx_status status = open_to_read(data_dir, &store, error);

	if (!status)
		status = kx_store_audit(store, &audit, error);
	if (!status)
		status = verify_index(store, data_dir, &proved, error);
	if (status)
		return status;
	proved.videos = audit.videos;
	proved.moments = audit.moments;
	proved.rows = audit.rows;
	proved.pending = audit.pending;
	memcpy(proved.digest, audit.digest, sizeof(proved.digest));
	*ret = proved;
	return KX_OK;
}

struct walk {
	struct kx_store *store;
	const struct kx_shard_visitor *visitor;
	const struct kx_video_record *video;
};

static kx_status walk_moment(void *ctx, const struct kx_moment *moment, const void *bytes, size_t len,
			     struct kx_error *error)
{
	const struct walk *walk = ctx;

	(void)bytes, (void)len;
	return walk->visitor->moment(walk->visitor->ctx, walk->video, moment, error);
}

static kx_status walk_video(void *ctx, const struct kx_video_record *video, struct kx_error *error)
{
	struct walk *walk = ctx;
	kx_status status = walk->visitor->video(walk->visitor->ctx, video, error);

	if (status || !walk->visitor->moment)
		return status;
	walk->video = video;
	return kx_store_each_moment(walk->store, video->result.video_id, video->generation, walk_moment, walk, error);
}

kx_status kx_shard_each(const char *data_dir, const struct kx_shard_visitor *visitor, struct kx_error *error)
{
	KX_CLEANUP(kx_store_cleanup) struct kx_store *store = NULL;
	struct walk walk = {.visitor = visitor};
	kx_status status = open_to_read(data_dir, &store, error);

	if (status)
		return status;
	walk.store = store;
	return kx_store_each_video(store, walk_video, &walk, error);
}
