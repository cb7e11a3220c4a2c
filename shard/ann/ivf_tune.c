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
float kx_ivf_effort(const struct kx_ivf *ivf, double recall)
{
	const struct kx_ivf_tuning *tuning = ivf->tuning.count ? &ivf->tuning : &guess;
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

float kx_ivf_epsilon(float recall)
{
	float epsilon = 0.5f + 0.29f * -logf(1.0f - recall + 1e-6f);

	return epsilon < 1.0f ? 1.0f : epsilon > EPSILON_MOST ? EPSILON_MOST : epsilon;
}

struct truth {
	struct kx_ivf_hit hits[K];
	uint32_t count;
};

/* Of what there is to find, those found: any of equal score is as good. */
static uint32_t found_of(const struct truth *truth, const struct truth *now)
{
	uint32_t found = 0;

	for (uint32_t i = 0; truth->count && i < now->count; i++)
		found += now->hits[i].score >= truth->hits[truth->count - 1].score;
	return found < truth->count ? found : truth->count;
}

struct tuner {
	const struct kx_ivf *ivf;
	const float *queries;
	const uint32_t *rows; /* NULL: they are none */
	size_t n;
	struct truth *truths;
	struct kx_ivf_scratch *scratch;
	struct kx_error *error;
};

static kx_status ask(const struct tuner *tuner, size_t i, float effort, float epsilon, struct truth *ret)
{
	struct kx_ivf_query query = {.vector = tuner->queries + i * tuner->ivf->recipe.dim, .k = K,
				     .exclude = tuner->rows ? tuner->rows[i] : KX_IVF_NO_ROW};

	return kx_ivf_search_with(tuner->ivf, &query, effort, epsilon, tuner->scratch, ret->hits, &ret->count, NULL,
				  tuner->error);
}

static kx_status learn(const struct tuner *tuner, size_t from, size_t to, float effort)
{
	kx_status status = KX_OK;

	for (size_t i = from; !status && i < to; i++)
		status = ask(tuner, i, effort, EPSILON_MOST, &tuner->truths[i]);
	return status;
}

/* Recall of the first n queries. */
static kx_status measure(const struct tuner *tuner, size_t n, float effort, float epsilon, float *ret_recall)
{
	uint64_t found = 0, there = 0;

	for (size_t i = 0; i < n; i++) {
		struct truth now;
		kx_status status = ask(tuner, i, effort, epsilon, &now);

		if (status)
			return status;
		there += tuner->truths[i].count;
		found += found_of(&tuner->truths[i], &now);
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
		status = measure(tuner, exact, effort, EPSILON_MOST, &recall);
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

		status = measure(tuner, some_of(tuner->n, next), effort, kx_ivf_epsilon(next), &recall);
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
	free(tuner.truths);
	kx_ivf_scratch_free(tuner.scratch);
	return status;
}

kx_status kx_ivf_tune(const struct kx_ivf *ivf, const float *queries, size_t n, struct kx_ivf_tuning *ret,
		      struct kx_error *error)
{
	return kx_ivf_tune_rows(ivf, queries, NULL, n, ret, error);
}
