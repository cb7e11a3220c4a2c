/* A whole mirror into a snapshot, so that the next start need not read all records before it answers. */
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "shard/query/indexed.h"
#include "shard/query/kept.h"
#include "shard/query/mirror_internal.h"

#define CHANGES_LEAST 1024u /* a snapshot is made after so many changes, */
#define CHANGES_SHARE 64u   /* or a share of the videos */

static int order_ids(const void *a, const void *b, void *ctx)
{
	const struct kx_mirror *mirror = ctx;

	return strcmp(mirror->rows[*(const uint32_t *)a]->id, mirror->rows[*(const uint32_t *)b]->id);
}

static kx_status order_rows(struct kx_mirror *mirror, struct kx_kept_order *ret)
{
	ret->order = malloc((mirror->count + 1u) * sizeof(*ret->order));
	ret->now = malloc((mirror->count + 1u) * sizeof(*ret->now));
	if (!ret->order || !ret->now)
		return KX_ENOMEM;
	ret->old_count = mirror->count;
	for (uint32_t row = 0; row < mirror->count; row++) {
		ret->now[row] = KX_ANN_NO_ROW;
		if (mirror->rows[row]->id)
			ret->order[ret->count++] = row;
	}
	qsort_r(ret->order, ret->count, sizeof(*ret->order), order_ids, mirror);
	for (uint32_t i = 0; i < ret->count; i++)
		ret->now[ret->order[i]] = i;
	return KX_OK;
}

static void keep_facts(const struct kx_mirror *mirror, const struct kx_kept_order *order, struct kx_snapshot_writer *writer)
{
	kx_snapshot_begin(writer, KX_KEPT_FACTS, 0);
	for (uint32_t i = 0; i < order->count; i++) {
		const struct mirror_row *row = mirror->rows[order->order[i]];
		const struct kx_kept_facts facts = {row->generation, row->duration_us, row->media_us, row->moments};

		kx_snapshot_add(writer, &facts, sizeof(facts));
	}
}

/* With the lock held. */
static kx_status write_all(struct kx_mirror *mirror, struct kx_snapshot_writer *writer)
{
	struct kx_kept_head head = {.videos = mirror->stats.videos,
				    .moments = mirror->stats.moments,
				    .media_us = mirror->stats.media_us,
				    .epoch = mirror->epoch};
	struct kx_kept_order order = {0};
	kx_status status = order_rows(mirror, &order);

	head.rows = order.count;
	if (!status) {
		keep_facts(mirror, &order, writer);
		status = kx_columns_keep(mirror->columns, &order, &head, writer);
	}
	if (!status) {
		kx_indexed_keep(mirror->ann, &order, &head, writer);
		if (mirror->moments)
			kx_moments_keep(mirror->moments, &order, writer);
		kx_snapshot_begin(writer, KX_KEPT_HEAD, 0);
		kx_snapshot_add(writer, &head, sizeof(head));
	}
	free(order.order);
	free(order.now);
	return status;
}

/* The store's totals are those of the mirror, and no video is loose: else what is here is not what is there. Nor is it kept
 * when a value was left out because others of its name have another type: which one is then goes by the order of reading. */
static bool may_be_kept(struct kx_mirror *mirror)
{
	KX_CLEANUP(kx_cleanup_free) struct kx_totals *totals = malloc(sizeof(*totals));
	struct kx_buf is = {.max = SIZE_MAX / 2}, should = {.max = SIZE_MAX / 2};
	bool may = totals && !mirror->columns->told_type && !kx_mirror_totals_after(mirror, NULL, 0, &should, NULL) &&
		   !kx_store_totals(mirror->store, &is, NULL) && is.len == should.len &&
		   memcmp(is.data, should.data, is.len) == 0 && !kx_totals_decode(is.data, is.len, totals) && !totals->loose;

	kx_buf_done(&is);
	kx_buf_done(&should);
	return may;
}

static bool makes_snapshots(const struct kx_mirror *mirror)
{
	return mirror->keep_dir && mirror->indexed && !mirror->read_only && mirror->store && atomic_load(&mirror->loaded);
}

static bool has_snapshot(struct kx_mirror *mirror)
{
	return atomic_load(&mirror->has_snapshot) && kx_store_has_snapshot(mirror->store);
}

bool kx_mirror_keep_due(struct kx_mirror *mirror)
{
	uint64_t changes;

	if (!makes_snapshots(mirror) || mirror->keeping_failed)
		return false;
	changes = kx_store_changed(mirror->store);
	if (!has_snapshot(mirror))
		return mirror->stats.videos >= CHANGES_LEAST;
	return changes >= CHANGES_LEAST && changes >= mirror->stats.videos / CHANGES_SHARE;
}

static kx_status keep(struct kx_mirror *mirror, struct kx_error *error)
{
	KX_CLEANUP(kx_snapshot_writer_cleanup) struct kx_snapshot_writer *writer = NULL;
	struct kx_snapshot_ref ref;
	uint8_t bytes[KX_SNAPSHOT_REF_BYTES];
	kx_status status = kx_snapshot_create(mirror->keep_dir, &writer, error);

	if (status)
		return status;
	pthread_rwlock_rdlock(&mirror->lock);
	if (write_all(mirror, writer))
		status = kx_error_nomem(error);
	pthread_rwlock_unlock(&mirror->lock);
	if (!status)
		status = kx_snapshot_finish(writer, &ref, error);
	if (status)
		return status;
	kx_snapshot_ref_encode(&ref, bytes);
	status = kx_store_set_snapshot(mirror->store, bytes, sizeof(bytes), error);
	if (status)
		return status;
	atomic_store(&mirror->has_snapshot, true);
	kx_snapshot_sweep(mirror->keep_dir, &ref);
	return KX_OK;
}

void kx_mirror_keep(struct kx_mirror *mirror)
{
	struct kx_error error = {0};

	if (!makes_snapshots(mirror) || (has_snapshot(mirror) && !kx_store_changed(mirror->store)) || !mirror->stats.videos ||
	    !may_be_kept(mirror))
		return;
	mirror->keeping_failed = keep(mirror, &error) != KX_OK;
	if (mirror->keeping_failed)
		kx_log(KX_LOG_WARN, "no snapshot for the next start, which will read more: %s", error.message);
}
