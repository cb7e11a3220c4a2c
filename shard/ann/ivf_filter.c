/* Which rows may be found, and what searches remember of it.
 *
 * A view of a cell is made by the first search that comes to it, under a lock, and read by all others without one: they
 * read it only when its version is the cell's, and it is made anew only when it is not. A view that is looked at again and
 * again gets a copy of what matches, and an index that is searched again a list of the cells in which anything does. */
#include <pthread.h>
#include <stdlib.h>

#include "common/base/fault.h"
#include "shard/ann/ivf_impl.h"

#define CHUNK 4096u /* views that are allocated at once */
#define CHUNKS (KX_IVF_CELL_MAX / CHUNK)
#define COPY_VISITS 4u  /* after so many visits of a cell, what matches is copied: packing a code costs what scanning a block does */
#define COPY_LEAST 5u   /* fewer are compared by their vectors */
#define COPY_PART 2u    /* more than one in so many are not worth a copy */
#define COPIES_BYTES ((size_t)32 << 20)
#define ALIGNMENT 64u
#define MAP_PART 2u     /* a map is of use where at most one cell in so many has a match */
#define MAP_COST 32u    /* entries that are gone through for a map in the time in which a vector is compared */

/* Of one index. */
struct kx_ivf_views {
	const struct kx_ivf_filter *filter;
	uint64_t ivf;
	struct kx_ivf_views *next;
	size_t copies_bytes;
	struct kx_ivf_map map;
	uint32_t map_room;           /* groups */
	_Atomic uint64_t map_version; /* of the index when the map was made; 0: there is none */
	_Atomic uint64_t spent;      /* vectors compared, or cells passed by, for want of a map */
	bool had_map;
	_Atomic(struct kx_ivf_view *) chunks[CHUNKS];
};

struct kx_ivf_filter {
	uint64_t *bits;
	uint32_t rows;
	size_t words;
	uint64_t matches;
	pthread_mutex_t lock; /* of what follows, as far as it is not atomic */
	_Atomic bool changed; /* since views were made */
	_Atomic(struct kx_ivf_views *) views;
};

kx_status kx_ivf_filter_new(const uint64_t *bits, uint32_t rows, struct kx_ivf_filter **ret)
{
	struct kx_ivf_filter *filter = calloc(1, sizeof(*filter));

	if (!filter)
		return KX_ENOMEM;
	filter->rows = rows;
	filter->words = (rows + UINT64_C(63)) / 64;
	filter->bits = malloc((filter->words + 1) * sizeof(*bits));
	if (!filter->bits || pthread_mutex_init(&filter->lock, NULL)) {
		free(filter->bits);
		free(filter);
		return KX_ENOMEM;
	}
	if (rows)
		memcpy(filter->bits, bits, filter->words * sizeof(*bits));
	if (rows % 64)
		filter->bits[filter->words - 1] &= (UINT64_C(1) << rows % 64) - 1;
	for (size_t i = 0; i < filter->words; i++)
		filter->matches += (uint64_t)__builtin_popcountll(filter->bits[i]);
	*ret = filter;
	return KX_OK;
}

static void views_free(struct kx_ivf_views *views)
{
	for (uint32_t i = 0; i < CHUNKS; i++) {
		struct kx_ivf_view *chunk = atomic_load(&views->chunks[i]);

		for (uint32_t j = 0; chunk && j < CHUNK; j++) {
			free(chunk[j].words);
			free(atomic_load(&chunk[j].copy));
		}
		free(chunk);
	}
	free(views->map.lanes);
	free(views);
}

void kx_ivf_filter_free(struct kx_ivf_filter *filter)
{
	struct kx_ivf_views *views, *next;

	if (!filter)
		return;
	for (views = atomic_load(&filter->views); views; views = next) {
		next = views->next;
		views_free(views);
	}
	(void)pthread_mutex_destroy(&filter->lock);
	free(filter->bits);
	free(filter);
}

/* Here, where entries are gone through by the million. */
static inline bool has(const struct kx_ivf_filter *filter, uint32_t row)
{
	return row / 64 < filter->words && filter->bits[row / 64] >> row % 64 & 1;
}

bool kx_ivf_filter_has(const struct kx_ivf_filter *filter, uint32_t row)
{
	return has(filter, row);
}

static kx_status grow(struct kx_ivf_filter *filter, uint32_t row)
{
	size_t words = row / 64 + 1u + filter->words / 2;
	uint64_t *bits;

	if (row / 64 < filter->words)
		return KX_OK;
	bits = kx_fault("ann.grow") ? NULL : realloc(filter->bits, words * sizeof(*bits));
	if (!bits)
		return KX_ENOMEM;
	memset(bits + filter->words, 0, (words - filter->words) * sizeof(*bits));
	filter->bits = bits;
	filter->words = words;
	return KX_OK;
}

kx_status kx_ivf_filter_set(struct kx_ivf_filter *filter, uint32_t row, bool matches)
{
	kx_status status;

	if (row >= KX_IVF_ROW_MAX)
		return KX_ETOOBIG;
	if (has(filter, row) == matches)
		return KX_OK;
	status = grow(filter, row);
	if (status)
		return status;
	filter->bits[row / 64] ^= UINT64_C(1) << row % 64;
	filter->matches = matches ? filter->matches + 1 : filter->matches - 1;
	atomic_store(&filter->changed, true);
	return KX_OK;
}

uint64_t kx_ivf_filter_matches(const struct kx_ivf_filter *filter)
{
	return filter->matches;
}

const uint64_t *kx_ivf_filter_words(const struct kx_ivf_filter *filter, size_t *ret_count)
{
	*ret_count = filter->words;
	return filter->bits;
}

uint32_t kx_ivf_filter_masks(const struct kx_ivf_filter *filter, const uint32_t *rows, uint32_t count, uint32_t *masks)
{
	uint32_t matches = 0;

	for (uint32_t from = 0; from < count; from += KX_IVF_BLOCK, masks++) {
		uint32_t mask = 0;

		for (uint32_t i = 0; i < KX_IVF_BLOCK && from + i < count; i++)
			mask |= (uint32_t)has(filter, rows[from + i]) << i;
		*masks = mask;
		matches += (uint32_t)__builtin_popcount(mask);
	}
	return matches;
}

/* A change of the filter makes every view unknown. No search is beyond this point then. */
static void forget_all(struct kx_ivf_filter *filter)
{
	for (struct kx_ivf_views *views = atomic_load(&filter->views); views; views = views->next) {
		for (uint32_t i = 0; i < CHUNKS; i++) {
			struct kx_ivf_view *chunk = atomic_load(&views->chunks[i]);

			for (uint32_t j = 0; chunk && j < CHUNK; j++)
				atomic_store(&chunk[j].version, 0);
		}
		atomic_store(&views->map_version, 0);
	}
	atomic_store(&filter->changed, false);
}

static struct kx_ivf_views *find_views(const struct kx_ivf_filter *filter, const struct kx_ivf *ivf)
{
	struct kx_ivf_views *views = atomic_load(&filter->views);

	while (views && views->ivf != ivf->id)
		views = views->next;
	return views;
}

struct kx_ivf_views *kx_ivf_filter_views(const struct kx_ivf_filter *filter, const struct kx_ivf *ivf)
{
	struct kx_ivf_filter *mutable = (struct kx_ivf_filter *)(uintptr_t)filter;
	struct kx_ivf_views *views = atomic_load(&filter->changed) ? NULL : find_views(filter, ivf);

	if (views)
		return views;
	pthread_mutex_lock(&mutable->lock);
	if (atomic_load(&filter->changed))
		forget_all(mutable);
	views = find_views(filter, ivf);
	if (!views && !kx_fault("ann.view") && (views = calloc(1, sizeof(*views))) != NULL) {
		views->filter = filter;
		views->ivf = ivf->id;
		views->next = atomic_load(&filter->views);
		atomic_store(&mutable->views, views);
	}
	pthread_mutex_unlock(&mutable->lock);
	return views;
}

static struct kx_ivf_view *view_at(struct kx_ivf_views *views, uint32_t slot)
{
	struct kx_ivf_view *chunk = atomic_load_explicit(&views->chunks[slot / CHUNK], memory_order_acquire);
	struct kx_ivf_view *expected = NULL;

	if (!chunk) {
		chunk = kx_fault("ann.view") ? NULL : calloc(CHUNK, sizeof(*chunk));
		if (!chunk)
			return NULL;
		if (!atomic_compare_exchange_strong(&views->chunks[slot / CHUNK], &expected, chunk)) {
			free(chunk);
			chunk = expected;
		}
	}
	return &chunk[slot % CHUNK];
}

static bool view_reserve(struct kx_ivf_view *view, uint32_t words)
{
	uint32_t *memory;

	if (words <= view->room)
		return true;
	memory = kx_fault("ann.view") ? NULL : realloc(view->words, (words + UINT64_C(1)) * sizeof(*memory));
	if (!memory)
		return false;
	view->words = memory;
	view->room = words;
	return true;
}

/* No search reads it: its version is another. */
static void copy_drop(struct kx_ivf_views *views, struct kx_ivf_view *view)
{
	free(atomic_load(&view->copy));
	atomic_store(&view->copy, NULL);
	views->copies_bytes -= view->copy_bytes;
	view->copy_bytes = 0;
	atomic_store(&view->visits, 0);
}

static uint32_t count_matches(const struct kx_ivf_filter *filter, const struct kx_ivf_cell *cell)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < cell->count; i++)
		count += has(filter, cell->place.rows[i]);
	return count;
}

/* Under the lock. Comparing a vector costs less than scanning its block when the block holds few that match. */
static bool view_make(struct kx_ivf_views *views, struct kx_ivf_view *view, const struct kx_ivf_cell *cell)
{
	const struct kx_ivf_filter *filter = views->filter;
	uint32_t blocks = (cell->count + KX_IVF_BLOCK - 1) / KX_IVF_BLOCK, count = count_matches(filter, cell);

	copy_drop(views, view);
	view->named = count <= 2 * blocks;
	view->count = 0;
	if (!view_reserve(view, view->named ? count : blocks))
		return false;
	if (!view->named)
		view->count = kx_ivf_filter_masks(filter, cell->place.rows, cell->count, view->words);
	for (uint32_t i = 0; view->named && i < cell->count; i++)
		if (has(filter, cell->place.rows[i]))
			view->words[view->count++] = cell->place.rows[i];
	atomic_store_explicit(&view->version, cell->version, memory_order_release);
	return true;
}

/* Under the lock. Without memory there is none, which costs only time. */
static void copy_make(struct kx_ivf_views *views, struct kx_ivf_view *view, const struct kx_ivf *ivf,
		      const struct kx_ivf_cell *cell)
{
	uint32_t blocks = (view->count + KX_IVF_BLOCK - 1) / KX_IVF_BLOCK, at = 0;
	size_t bytes = (kx_ivf_place_bytes(ivf, blocks) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	struct kx_ivf_place to;
	uint8_t *memory;

	if (views->copies_bytes + bytes > COPIES_BYTES)
		return;
	memory = kx_fault("ann.view") ? NULL : aligned_alloc(ALIGNMENT, bytes);
	if (!memory)
		return;
	memset(memory, 0, bytes);
	to = kx_ivf_place_at(ivf, memory, blocks);
	for (uint32_t i = 0; i < cell->count; i++)
		if (has(views->filter, cell->place.rows[i]))
			kx_ivf_place_copy(ivf, &cell->place, i, &to, at++);
	view->copy_bytes = bytes;
	views->copies_bytes += bytes;
	atomic_store_explicit(&view->copy, memory, memory_order_release);
}

static bool is_worth_a_copy(struct kx_ivf_view *view, const struct kx_ivf_cell *cell)
{
	return view->count >= COPY_LEAST && view->count <= cell->count / COPY_PART &&
	       atomic_load_explicit(&view->visits, memory_order_relaxed) <= COPY_VISITS &&
	       atomic_fetch_add_explicit(&view->visits, 1, memory_order_relaxed) == COPY_VISITS;
}

const struct kx_ivf_view *kx_ivf_view_of(struct kx_ivf_views *views, const struct kx_ivf *ivf, uint32_t slot)
{
	const struct kx_ivf_cell *cell = &ivf->cells[slot];
	struct kx_ivf_filter *filter = (struct kx_ivf_filter *)(uintptr_t)views->filter;
	struct kx_ivf_view *view = view_at(views, slot);
	bool made = true, known, copies;

	if (!view)
		return NULL;
	known = atomic_load_explicit(&view->version, memory_order_acquire) == cell->version;
	copies = known && is_worth_a_copy(view, cell);
	if (known && !copies)
		return view;
	pthread_mutex_lock(&filter->lock);
	if (copies)
		copy_make(views, view, ivf, cell);
	else if (atomic_load(&view->version) != cell->version)
		made = view_make(views, view, cell);
	pthread_mutex_unlock(&filter->lock);
	return made ? view : NULL;
}

bool kx_ivf_view_copy(const struct kx_ivf_view *view, const struct kx_ivf *ivf, struct kx_ivf_place *ret)
{
	uint8_t *copy = atomic_load_explicit(&view->copy, memory_order_acquire);

	if (copy)
		*ret = kx_ivf_place_at(ivf, copy, (view->count + KX_IVF_BLOCK - 1) / KX_IVF_BLOCK);
	return copy != NULL;
}

void kx_ivf_view_fetch(struct kx_ivf_views *views, uint32_t slot)
{
	struct kx_ivf_view *chunk = atomic_load_explicit(&views->chunks[slot / CHUNK], memory_order_acquire);

	if (chunk)
		__builtin_prefetch(&chunk[slot % CHUNK]);
}

void kx_ivf_view_fetch_copy(struct kx_ivf_views *views, const struct kx_ivf *ivf, uint32_t slot)
{
	struct kx_ivf_view *chunk = atomic_load_explicit(&views->chunks[slot / CHUNK], memory_order_acquire);
	const uint8_t *copy = chunk ? atomic_load_explicit(&chunk[slot % CHUNK].copy, memory_order_relaxed) : NULL;

	for (size_t at = 0; copy && at < kx_ivf_lead_block_bytes(ivf); at += ALIGNMENT)
		__builtin_prefetch(copy + at);
}

/* --- Which cells have a match ------------------------------------------------------------------------------------ */

static void map_cells(const struct kx_ivf_filter *filter, const struct kx_ivf *ivf, struct kx_ivf_map *map)
{
	double sum = 0, squares = 0;

	map->cells = 0;
	for (uint32_t slot = 0; slot < ivf->slot_count; slot++) {
		const struct kx_ivf_cell *cell = &ivf->cells[slot];
		uint32_t count = cell->id == KX_IVF_NO_CELL ? 0 : count_matches(filter, cell);

		if (!count && !(cell->id != KX_IVF_NO_CELL && cell->cold))
			continue;
		map->lanes[cell->lane / KX_IVF_LANES] |= (uint16_t)(1u << cell->lane % KX_IVF_LANES);
		map->cells++;
		sum += count;
		squares += (double)count * count;
	}
	map->crowd = squares > 0 ? sum * sum / squares : 0;
	map->sparse = map->cells <= ivf->cell_count / MAP_PART;
}

/* Under the lock. */
static void map_make(struct kx_ivf_views *views, const struct kx_ivf *ivf)
{
	const uint32_t groups = ivf->centroids.lanes.groups;
	struct kx_ivf_map *map = &views->map;

	if (groups > views->map_room) {
		uint16_t *lanes = kx_fault("ann.view") ? NULL : realloc(map->lanes, groups * sizeof(*lanes));

		if (!lanes)
			return;
		map->lanes = lanes;
		views->map_room = groups;
	}
	if (groups)
		memset(map->lanes, 0, groups * sizeof(*map->lanes));
	map_cells(views->filter, ivf, map);
	views->had_map = true;
	atomic_store_explicit(&views->map_version, ivf->version, memory_order_release);
}

/* The first map is made as soon as a filter is used for the second time, as making the filter went through all rows, too; one
 * that replaces another, when what was spent for want of it would have paid it. */
static bool is_due(const struct kx_ivf_views *views, uint64_t spent, const struct kx_ivf *ivf)
{
	return spent > (views->had_map ? ivf->entry_count / MAP_COST : 0);
}

const struct kx_ivf_map *kx_ivf_filter_map(struct kx_ivf_views *views, const struct kx_ivf *ivf)
{
	struct kx_ivf_filter *filter = (struct kx_ivf_filter *)(uintptr_t)views->filter;
	bool known = atomic_load_explicit(&views->map_version, memory_order_acquire) == ivf->version;

	if (!known && atomic_load_explicit(&views->spent, memory_order_relaxed)) {
		pthread_mutex_lock(&filter->lock);
		if (atomic_load(&views->map_version) != ivf->version && is_due(views, atomic_load(&views->spent), ivf)) {
			atomic_store(&views->spent, 0);
			map_make(views, ivf);
		}
		pthread_mutex_unlock(&filter->lock);
		known = atomic_load_explicit(&views->map_version, memory_order_acquire) == ivf->version;
	}
	return known ? &views->map : NULL;
}

void kx_ivf_filter_spent(struct kx_ivf_views *views, uint32_t spent)
{
	atomic_fetch_add_explicit(&views->spent, spent, memory_order_relaxed);
}
