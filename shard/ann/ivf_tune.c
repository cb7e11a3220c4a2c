/* How hard to look for which recall. */
#include "shard/ann/ivf_impl.h"

#include <stdlib.h>

#define K 10u
#define FIRST 0.25f
#define STEP 1.22f
#define ENOUGH 0.9995f
#define EXACT 100u         /* queries for which all vectors are compared */
#define THOROUGH 4.0f      /* efforts that are tried for the others */
#define THOROUGH_MOST 200.0f
#define EPSILON_MOST 3.5f
#define LITTLE 0.85f
#define MUCH 0.997f
#define SPREAD_GUESS 0.05f
#define SPREAD_STEPS 5u
#define SPREAD_RECALL 0.98
#define SPREAD_QUERIES 800u
#define SPREAD_PART 32u /* of the rows, one in so many is left by the filter that spread is measured with, */
#define SPREAD_LEAST 6000u  /* but never so few that they are compared one by one, */
#define SPREAD_MOST 40000u  /* nor more: for each query all of them are compared */
#define SPREAD_SHARE 0.25   /* larger shares tell nothing */
#define STEPS_BEYOND 3.0f /* of the last piece, on which what was not measured may lie */

/* Where nothing was measured. */
static const struct kx_ivf_tuning guess = {
	.count = 4,
	.recall = {0.80f, 0.95f, 0.99f, 0.999f},
	.effort = {0.7f, 1.2f, 2.0f, 4.0f},
};

void kx_ivf_set_tuning(struct kx_ivf *ivf, const struct kx_ivf_tuning *tuning)
{
	ivf->tuning = *tuning;
}

/* Between points along the logarithm of what is missed, where the curve is nearly straight; beyond the last point, on
 * along its last piece. */
static float effort_of(const struct kx_ivf_tuning *tuning, double recall)
{
	uint32_t at = 1;
	float low, high, x;

	if (tuning->count == 1 || recall <= (double)tuning->recall[0])
		return tuning->effort[0];
	while (at + 1 < tuning->count && recall > (double)tuning->recall[at])
		at++;
	low = -logf(1.0f - tuning->recall[at - 1] + 1e-5f);
	high = -logf(1.0f - tuning->recall[at] + 1e-5f);
	x = high > low ? ((float)-log(1.0 - recall + 1e-5) - low) / (high - low) : 1.0f;
	x = x < STEPS_BEYOND ? x : STEPS_BEYOND;
	return tuning->effort[at - 1] + (tuning->effort[at] - tuning->effort[at - 1]) * x;
}

static float epsilon_of(float recall)
{
	float epsilon = 0.5f + 0.29f * -logf(1.0f - recall + 1e-6f);

	return epsilon < 1.0f ? 1.0f : epsilon > EPSILON_MOST ? EPSILON_MOST : epsilon;
}

struct kx_ivf_how kx_ivf_how_of(const struct kx_ivf_tuning *tuning, double recall)
{
	tuning = tuning->count ? tuning : &guess;
	return (struct kx_ivf_how){
		.effort = recall < 1.0 ? effort_of(tuning, recall) : 0.0f,
		.epsilon = epsilon_of((float)recall),
		.spread = tuning->spread > 0.0f ? tuning->spread : SPREAD_GUESS,
	};
}

struct truth {
	struct kx_ivf_hit hits[K];
	uint32_t count;
};

uint32_t kx_ivf_found(const struct kx_ivf_hit *truth, uint32_t there, const struct kx_ivf_hit *hits, uint32_t count)
{
	uint32_t found = 0;

	for (uint32_t i = 0; there && i < count; i++)
		found += hits[i].score >= truth[there - 1].score;
	return found < there ? found : there;
}

struct tuner {
	const struct kx_ivf *ivf;
	const float *queries;
	const uint32_t *rows; /* NULL: they are none */
	size_t n;
	const struct kx_ivf_filter *filter;
	struct truth *truths;
	struct kx_ivf_scratch *scratch;
	struct kx_error *error;
};

static kx_status ask(const struct tuner *tuner, size_t i, const struct kx_ivf_how *how, struct truth *ret)
{
	struct kx_ivf_query query = {.vector = tuner->queries + i * tuner->ivf->recipe.dim, .k = K,
				     .exclude = tuner->rows ? tuner->rows[i] : KX_IVF_NO_ROW, .filter = tuner->filter};

	return kx_ivf_search_with(tuner->ivf, &query, how, tuner->scratch, ret->hits, &ret->count, NULL,
				  tuner->error);
}

static kx_status learn(const struct tuner *tuner, size_t from, size_t to, float effort)
{
	const struct kx_ivf_how how = {.effort = effort, .epsilon = EPSILON_MOST};
	kx_status status = KX_OK;

	for (size_t i = from; !status && i < to; i++)
		status = ask(tuner, i, &how, &tuner->truths[i]);
	return status;
}

/* Recall of the first n queries. */
static kx_status measure(const struct tuner *tuner, size_t n, const struct kx_ivf_how *how, float *ret_recall)
{
	uint64_t found = 0, there = 0;

	for (size_t i = 0; i < n; i++) {
		struct truth now;
		kx_status status = ask(tuner, i, how, &now);

		if (status)
			return status;
		there += tuner->truths[i].count;
		found += kx_ivf_found(tuner->truths[i].hits, tuner->truths[i].count, now.hits, now.count);
	}
	*ret_recall = there ? (float)found / (float)there : 1.0f;
	return KX_OK;
}

static kx_status learn_all(const struct tuner *tuner)
{
	size_t exact = tuner->n < EXACT ? tuner->n : EXACT;
	float effort = THOROUGH, recall = 0.0f;
	kx_status status = learn(tuner, 0, exact, 0.0f);

	if (exact == tuner->n)
		return status;
	for (; !status && effort < THOROUGH_MOST; effort *= 2.0f) {
		const struct kx_ivf_how how = {.effort = effort, .epsilon = EPSILON_MOST};

		status = measure(tuner, exact, &how, &recall);
		if (recall >= 1.0f)
			break;
	}
	return status ? status : learn(tuner, exact, tuner->n, recall >= 1.0f ? effort : 0.0f);
}

/* The recall of the next step as the last two let expect: what is missed falls by equal factors. */
static float expected(const struct kx_ivf_tuning *tuning)
{
	float missed, before;

	if (!tuning->count)
		return 0.0f;
	missed = 1.0f - tuning->recall[tuning->count - 1];
	before = tuning->count > 1 ? 1.0f - tuning->recall[tuning->count - 2] : missed;
	return 1.0f - (before > 0.0f ? missed * missed / before : 0.0f);
}

/* How many queries are asked: all where it matters, few where nobody asks for so little, and some where searches are dear and
 * recall hardly differs from one query to another. */
static size_t some_of(size_t n, float recall)
{
	size_t some = recall < LITTLE ? n / 8 : recall > MUCH ? n / 4 : n;

	return some < EXACT ? (n < EXACT ? n : EXACT) : some;
}

/* With the width of bounds that its own recall will be given. */
static kx_status fill(const struct tuner *tuner, struct kx_ivf_tuning *ret)
{
	struct kx_ivf_tuning made = {0};
	float effort = FIRST, recall;
	kx_status status = learn_all(tuner);

	for (; !status && made.count < KX_IVF_TUNING_POINTS; effort *= STEP) {
		float next = expected(&made);
		const struct kx_ivf_how how = {.effort = effort, .epsilon = epsilon_of(next)};

		status = measure(tuner, some_of(tuner->n, next), &how, &recall);
		if (status)
			break;
		if (made.count && recall <= made.recall[made.count - 1])
			recall = made.recall[made.count - 1] + 1e-6f;
		made.recall[made.count] = recall;
		made.effort[made.count++] = effort;
		if (recall >= ENOUGH)
			break;
	}
	if (!status)
		*ret = made;
	return status;
}

/* Some rows, whatever they are. NULL: out of memory, or the index is too small for it to matter. */
static struct kx_ivf_filter *some_rows(const struct kx_ivf *ivf)
{
	const double rows = (double)ivf->entry_count;
	double matches = rows / SPREAD_PART;
	uint64_t *bits = NULL, state = ivf->recipe.seed, below;
	struct kx_ivf_filter *filter = NULL;

	matches = matches < SPREAD_LEAST ? SPREAD_LEAST : matches > SPREAD_MOST ? SPREAD_MOST : matches;
	if (ivf->cold_count || matches > rows * SPREAD_SHARE)
		return NULL;
	below = (uint64_t)(matches / rows * (double)UINT32_MAX);
	bits = calloc(ivf->present_words, sizeof(*bits));
	for (size_t row = 0; bits && row < ivf->present_words * 64; row++) {
		bits[row / 64] |= (uint64_t)(kx_ivf_random(&state) >> 32 < below) << row % 64;
	}
	if (bits && kx_ivf_filter_new(bits, (uint32_t)ivf->present_words * 64, &filter))
		filter = NULL;
	free(bits);
	return filter;
}

/* The least spread with which a filter costs no recall, by halving what it may be. */
static kx_status find_spread(const struct tuner *tuner, struct kx_ivf_tuning *tuning)
{
	struct kx_ivf_how how = kx_ivf_how_of(tuning, SPREAD_RECALL);
	float low = 0.0f, high = KX_IVF_SPREAD_MAX, recall;
	kx_status status = learn(tuner, 0, tuner->n, 0.0f);

	for (uint32_t i = 0; !status && i < SPREAD_STEPS; i++) {
		how.spread = (low + high) / 2.0f;
		status = measure(tuner, tuner->n, &how, &recall);
		*((double)recall < SPREAD_RECALL ? &low : &high) = how.spread;
	}
	if (!status)
		tuning->spread = high;
	return status;
}

static kx_status fill_spread(const struct tuner *tuner, struct kx_ivf_tuning *tuning)
{
	struct kx_ivf_filter *filter = some_rows(tuner->ivf);
	struct tuner filtered = *tuner;
	kx_status status;

	if (!filter)
		return KX_OK;
	filtered.filter = filter;
	filtered.n = tuner->n < SPREAD_QUERIES ? tuner->n : SPREAD_QUERIES;
	status = find_spread(&filtered, tuning);
	kx_ivf_filter_free(filter);
	return status;
}

kx_status kx_ivf_tune_rows(const struct kx_ivf *ivf, const float *queries, const uint32_t *rows, size_t n,
			   struct kx_ivf_tuning *ret, struct kx_error *error)
{
	struct tuner tuner = {.ivf = ivf, .queries = queries, .rows = rows, .n = n, .error = error};
	kx_status status;

	if (!n)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "no queries to tune with");
	tuner.truths = calloc(n, sizeof(*tuner.truths));
	if (!tuner.truths || kx_ivf_scratch_new(&tuner.scratch)) {
		free(tuner.truths);
		return kx_error_nomem(error);
	}
	status = fill(&tuner, ret);
	if (!status)
		status = fill_spread(&tuner, ret);
	free(tuner.truths);
	kx_ivf_scratch_free(tuner.scratch);
	return status;
}

kx_status kx_ivf_tune(const struct kx_ivf *ivf, const float *queries, size_t n, struct kx_ivf_tuning *ret,
		      struct kx_error *error)
{
	return kx_ivf_tune_rows(ivf, queries, NULL, n, ret, error);
}
