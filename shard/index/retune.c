/* How hard to look for which recall, measured anew beside everything else when much has changed: rows that are there are asked
 * for, and do not find themselves. Some are of those put since it was measured last, others any: where data drifts queries
 * do, and what they find is often worse than what the others do. The worse of the two kinds counts. */
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "shard/ann/ivf_rotate.h"
#include "shard/index/internal.h"

#define CHANGED_PART 32u   /* of the rows came or went: the tuning is in doubt */
#define CHANGED_LEAST 2000u
#define YOUNG 4u
#define PROBES_A_STEP 4u   /* some milliseconds */
#define TRIES 16u          /* for a row that is there */
#define K 10u
#define ROWS_LEAST 64u     /* of a kind, for it to say anything */

/* So many changes put the tuning in doubt. */
static uint64_t in_doubt_after(const struct kx_ispace *space)
{
	uint64_t part = atomic_load(&space->rows) / CHANGED_PART;

	return part > CHANGED_LEAST ? part : CHANGED_LEAST;
}

void kx_iretune_note(struct kx_ispace *space, uint32_t row)
{
	struct kx_iretune *retune = &space->retune;

	retune->changes++;
	if (row == KX_IVF_NO_ROW)
		return;
	/* One kept at random makes room, now and then: how long they stay falls off exponentially, to a quarter of the time
	 * between two tunings in the mean (biased reservoir sampling: Aggarwal, VLDB 2006). */
	if (retune->late_count < KX_RETUNE_ROWS)
		retune->late[retune->late_count++] = row;
	else if (kx_ivf_random(&retune->random) % in_doubt_after(space) < YOUNG * KX_RETUNE_ROWS)
		retune->late[kx_ivf_random(&retune->random) % KX_RETUNE_ROWS] = row;
}

static bool is_due(const struct kx_ispace *space)
{
	return space->retune.changes >= in_doubt_after(space) && space->tuning.count && atomic_load(&space->settled) &&
	       kx_igen_has_room(space->gen);
}

/* The row to ask for; KX_IVF_NO_ROW: none. By the holder of writer. */
static uint32_t choose(struct kx_ispace *space, enum kx_iprobed kind)
{
	struct kx_iretune *retune = &space->retune;
	const uint32_t bound = atomic_load(&space->rows_bound);

	for (uint32_t i = 0; i < TRIES; i++) {
		uint32_t row;

		if (kind == KX_PROBED_LATE && retune->asked[kind] >= retune->late_count)
			return KX_IVF_NO_ROW;
		row = kind == KX_PROBED_LATE ? retune->late[retune->asked[kind]] : (uint32_t)(kx_ivf_random(&retune->random) % bound);
		if (space->gen->where[row])
			return row;
		retune->asked[kind] += kind == KX_PROBED_LATE;
	}
	return KX_IVF_NO_ROW;
}

/* A row that is asked for, and what there is to find. */
struct probe {
	struct kx_ispace *space;
	const struct kx_igen *gen; /* must still count */
	enum kx_iprobed kind;
	uint32_t row;
	struct kx_iscratch *scratch;
	struct kx_ivf_hit truth[K];
	uint32_t there;
	uint32_t found[KX_IVF_PROBE_POINTS];
};

static bool ask(struct probe *probe, uint32_t point, struct kx_ivf_hit *ret, uint32_t *ret_count)
{
	struct kx_ispace *space = probe->space;
	const struct kx_ivf_query query = {.vector = probe->scratch->vectors, .k = K, .exclude = probe->row};
	bool good;

	/* Between two searches whoever wants to change something may. */
	pthread_rwlock_rdlock(&space->lock);
	good = space->gen == probe->gen && !space->broken &&
	       kx_ivf_probe(space->gen->ivf, &query, point, probe->scratch->ivf, ret, ret_count, NULL) == KX_OK;
	pthread_rwlock_unlock(&space->lock);
	return good;
}

/* False: it says nothing. */
static bool run(struct probe *probe)
{
	struct kx_ivf_hit hits[K];
	uint32_t count;

	if (!ask(probe, KX_IVF_PROBE_THOROUGH, probe->truth, &probe->there))
		return false;
	for (uint32_t point = 0; point < KX_IVF_PROBE_POINTS; point++) {
		if (!ask(probe, point, hits, &count))
			return false;
		probe->found[point] = kx_ivf_found(probe->truth, probe->there, hits, count);
	}
	return true;
}

/* False: all rows that were to be asked for have been. */
static bool begin(struct probe *probe)
{
	struct kx_ispace *space = probe->space;
	struct kx_iretune *retune = &space->retune;

	probe->gen = space->gen;
	for (int kind = 0; kind < KX_PROBED_KINDS; kind++) {
		if (retune->asked[kind] >= KX_RETUNE_ROWS)
			continue;
		probe->kind = (enum kx_iprobed)kind;
		probe->row = choose(space, probe->kind);
		if (probe->row == KX_IVF_NO_ROW)
			continue;
		retune->asked[kind]++;
		kx_ihalves_to_floats(kx_ivectors_row(&space->vectors, probe->row), space->record.recipe.dim,
				     probe->scratch->vectors);
		return true;
	}
	return false;
}

static void count(struct probe *probe)
{
	struct kx_iretune *retune = &probe->space->retune;

	retune->there[probe->kind] += probe->there;
	for (uint32_t point = 0; point < KX_IVF_PROBE_POINTS; point++)
		retune->found[probe->kind][point] += probe->found[point];
}

static float recall_at(const struct kx_iretune *retune, uint32_t point)
{
	float least = 1.0f;

	for (int kind = 0; kind < KX_PROBED_KINDS; kind++) {
		float recall;

		if (retune->there[kind] < (uint64_t)ROWS_LEAST * K)
			continue;
		recall = (float)retune->found[kind][point] / (float)retune->there[kind];
		least = recall < least ? recall : least;
	}
	return least;
}

static void conclude(struct kx_ispace *space)
{
	struct kx_iretune *retune = &space->retune;
	struct kx_ivf_tuning made = {.spread = space->tuning.spread};

	for (uint32_t point = 0; point < KX_IVF_PROBE_POINTS; point++) {
		float recall = recall_at(retune, point), before = made.count ? made.recall[made.count - 1] : 0.0f;

		made.recall[made.count] = recall > before ? recall : before + 1e-6f;
		made.effort[made.count++] = kx_ivf_probe_effort(point);
		if (recall >= 1.0f)
			break;
	}
	if (retune->there[KX_PROBED_ANY] >= (uint64_t)ROWS_LEAST * K) {
		pthread_rwlock_wrlock(&space->lock);
		space->tuning = made;
		space->recall.effort = 1;
		space->recall.recent = 0;
		space->recall.recent_hits = space->recall.recent_wanted = 0;
		kx_itune(space);
		pthread_rwlock_unlock(&space->lock);
		kx_ikeep_tuning(space);
		space->tunings++;
	}
	retune->changes = 0;
	memset(retune->asked, 0, sizeof(retune->asked));
	memset(retune->there, 0, sizeof(retune->there));
	memset(retune->found, 0, sizeof(retune->found));
}

/* One row more; *ret_more: there are others. */
static kx_status probe_one(struct probe *probe, bool *ret_more, struct kx_error *error)
{
	struct kx_ispace *space = probe->space;
	kx_status status;
	bool good = false;

	kx_iwriter_lock(space->index);
	status = kx_ibroken(space, error);
	*ret_more = !status && is_due(space) && begin(probe);
	if (!status && !*ret_more && is_due(space))
		conclude(space);
	kx_iwriter_unlock(space->index);
	if (status || !*ret_more)
		return status;
	good = run(probe);
	kx_iwriter_lock(space->index);
	if (good && space->gen == probe->gen)
		count(probe);
	kx_iwriter_unlock(space->index);
	return KX_OK;
}

kx_status kx_iretune_step(struct kx_ispace *space, bool *ret_did, struct kx_error *error)
{
	struct probe probe = {.space = space};
	kx_status status = KX_OK;
	bool more;

	kx_iwriter_lock(space->index);
	more = *ret_did = is_due(space);
	kx_iwriter_unlock(space->index);
	if (!more)
		return KX_OK;
	probe.scratch = kx_iscratch_take(space->index);
	if (!probe.scratch)
		return kx_error_nomem(error);
	for (uint32_t i = 0; !status && more && i < PROBES_A_STEP && !atomic_load(&space->index->stop); i++)
		status = probe_one(&probe, &more, error);
	kx_iscratch_give(space->index, probe.scratch);
	if (more)
		atomic_store(&space->index->crowded, true); /* there is no hurry */
	return status;
}
