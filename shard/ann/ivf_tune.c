/* How hard to look for which recall. */
#include "shard/ann/ivf_impl.h"

#include <stdlib.h>

#define K 10u
#define FIRST 0.25f
#define STEP 1.22f
#define ENOUGH 0.9995f

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
	x = ((float)-log(1.0 - recall + 1e-5) - low) / (high - low);
	return tuning->effort[at - 1] + (tuning->effort[at] - tuning->effort[at - 1]) * x;
}

float kx_ivf_epsilon(float recall)
{
	float epsilon = 0.5f + 0.29f * -logf(1.0f - recall + 1e-6f);

	return epsilon < 1.0f ? 1.0f : epsilon > 3.5f ? 3.5f : epsilon;
}

struct truth {
	struct kx_ivf_hit hits[K];
	uint32_t count;
};

/* Of what there is to find, those found: any of equal score is as good. */
static uint32_t found_of(const struct truth *truth, const struct kx_ivf_hit *hits, uint32_t count)
{
	uint32_t found = 0;

	for (uint32_t i = 0; i < count; i++)
		found += hits[i].score >= truth->hits[truth->count - 1].score;
	return found < truth->count ? found : truth->count;
}

struct tuner {
	const struct kx_ivf *ivf;
	const float *queries;
	size_t n;
	struct truth *truths;
	struct kx_ivf_scratch *scratch;
};

static kx_status measure(const struct tuner *tuner, float effort, float epsilon, float *ret_recall, struct kx_error *error)
{
	uint64_t found = 0, there = 0;

	for (size_t i = 0; i < tuner->n; i++) {
		struct kx_ivf_query query = {.vector = tuner->queries + i * tuner->ivf->recipe.dim, .k = K,
					     .exclude = KX_IVF_NO_ROW};
		struct truth now, *truth = effort > 0.0f ? &now : &tuner->truths[i];
		kx_status status = kx_ivf_search_with(tuner->ivf, &query, effort, epsilon, tuner->scratch,
						      truth->hits, &truth->count, NULL, error);

		if (status)
			return status;
		there += tuner->truths[i].count;
		if (truth->count)
			found += found_of(&tuner->truths[i], truth->hits, truth->count);
	}
	*ret_recall = there ? (float)found / (float)there : 1.0f;
	return KX_OK;
}

static kx_status fill(const struct tuner *tuner, struct kx_ivf_tuning *ret, struct kx_error *error)
{
	struct kx_ivf_tuning made = {0};
	float effort = FIRST, recall;
	kx_status status = measure(tuner, 0.0f, 0.0f, &recall, error);

	for (; !status && made.count < KX_IVF_TUNING_POINTS; effort *= STEP) {
		/* With the width for what the last one reached: less than what its own recall will be given. */
		float epsilon = kx_ivf_epsilon(made.count ? made.recall[made.count - 1] : 0.0f);

		status = measure(tuner, effort, epsilon, &recall, error);
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

kx_status kx_ivf_tune(const struct kx_ivf *ivf, const float *queries, size_t n, struct kx_ivf_tuning *ret,
		      struct kx_error *error)
{
	struct tuner tuner = {.ivf = ivf, .queries = queries, .n = n};
	kx_status status;

	if (!n)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "no queries to tune with");
	tuner.truths = calloc(n, sizeof(*tuner.truths));
	if (!tuner.truths || kx_ivf_scratch_new(&tuner.scratch)) {
		free(tuner.truths);
		return kx_error_nomem(error);
	}
	status = fill(&tuner, ret, error);
	free(tuner.truths);
	kx_ivf_scratch_free(tuner.scratch);
	return status;
}
