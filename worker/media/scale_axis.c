#include "worker/media/scale_axis.h"

#include <stdbool.h>
#include <stdlib.h>

/* All positions below are in 1/(2 * count) of a pixel, where samples and outputs begin at whole numbers. */

static int64_t floor_div(int64_t a, int64_t b)
{
	int64_t quotient = a / b;
	return a % b < 0 ? quotient - 1 : quotient;
}

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
	return value < low ? low : value > high ? high : value;
}

/* Weights are differences of rounded sums: their own sum is exact, and no error adds up along the taps. */
static void cover(struct kx_axis *axis, const struct kx_axis_shape *shape, unsigned output)
{
	int64_t span = 2 * shape->extent;
	int64_t low = span * output;
	int64_t origin = shape->origin2 * axis->count;
	int64_t step = shape->step2 * axis->count;
	int64_t sample = clamp(floor_div(low - origin, step), 0, shape->samples - 1);
	int16_t *weights = axis->weights + (size_t)output * axis->taps;
	int64_t before = 0;
	axis->first[output] = (uint32_t)sample;
	for (unsigned tap = 0; before < KX_AXIS_ONE; tap++, sample++) {
		int64_t end = origin + (sample + 1) * step - low;
		int64_t covered = sample == shape->samples - 1 ? span : clamp(end, 0, span);
		int64_t sum = (covered * KX_AXIS_ONE + shape->extent) / span;
		weights[tap] = (int16_t)(sum - before);
		before = sum;
	}
}

static void interpolate(struct kx_axis *axis, const struct kx_axis_shape *shape, unsigned output)
{
	int64_t step = shape->step2 * axis->count;
	/* From the middle of sample 0 to the middle of the output, doubled to stay whole. */
	int64_t distance = 2 * shape->extent * (2 * (int64_t)output + 1) - 2 * shape->origin2 * axis->count - step;
	int64_t sample = floor_div(distance, 2 * step);
	int64_t rest = distance - sample * 2 * step;
	int16_t *weights = axis->weights + (size_t)output * axis->taps;
	int64_t second = (rest * KX_AXIS_ONE + step) / (2 * step);
	if (sample < 0 || sample >= shape->samples - 1) {
		sample = sample < 0 ? 0 : shape->samples - 1;
		second = 0;
	}
	axis->first[output] = (uint32_t)sample;
	weights[0] = (int16_t)(KX_AXIS_ONE - second);
	weights[1] = (int16_t)second;
}

static bool is_dense(const struct kx_axis_shape *shape, unsigned count)
{
	return shape->step2 * count <= 2 * shape->extent;
}

unsigned kx_axis_taps(const struct kx_axis_shape *shape, unsigned count)
{
	int64_t step = shape->step2 * count;
	return is_dense(shape, count) ? (unsigned)((2 * shape->extent + step - 1) / step + 1) : 2;
}

static bool group_fill(const struct kx_axis *axis, unsigned at, struct kx_axis_group *group)
{
	group->at = at;
	group->first = axis->first[at];
	group->span = axis->first[at + KX_GROUP_OUTPUTS - 1] + axis->taps - group->first;
	if (group->span > KX_GROUP_SAMPLES)
		return false;
	for (unsigned k = 0; k < KX_GROUP_OUTPUTS; k++) {
		for (unsigned t = 0; t < axis->taps; t++) {
			unsigned to = 2 * k + t % 2;
			group->pick[t / 2][to] = (uint16_t)(axis->first[at + k] - group->first + t);
			group->weights[t / 2][to] = axis->weights[(size_t)(at + k) * axis->taps + t];
		}
	}
	return true;
}

static kx_status make_groups(struct kx_axis *axis)
{
	if (axis->count < KX_GROUP_OUTPUTS || axis->taps % 2 || axis->taps > 2 * KX_GROUP_PAIRS)
		return KX_OK;
	unsigned groups = kx_axis_groups(axis);
	axis->groups = calloc(groups, sizeof(*axis->groups));
	if (!axis->groups)
		return KX_ENOMEM;
	bool fit = true;
	for (unsigned i = 0; i < groups && fit; i++) {
		unsigned at = i * KX_GROUP_OUTPUTS;
		if (at + KX_GROUP_OUTPUTS > axis->count)
			at = axis->count - KX_GROUP_OUTPUTS;
		fit = group_fill(axis, at, &axis->groups[i]);
		if (axis->groups[i].span > axis->span)
			axis->span = axis->groups[i].span;
	}
	if (!fit) {
		free(axis->groups);
		axis->groups = NULL;
	}
	return KX_OK;
}

kx_status kx_axis_init(struct kx_axis *axis, struct kx_axis_shape shape, unsigned count, unsigned multiple)
{
	unsigned taps = (kx_axis_taps(&shape, count) + multiple - 1) / multiple * multiple;
	*axis = (struct kx_axis){.count = count, .taps = taps};
	axis->first = calloc(count, sizeof(*axis->first));
	axis->weights = calloc((size_t)count * taps, sizeof(*axis->weights));
	if (!axis->first || !axis->weights) {
		kx_axis_done(axis);
		return KX_ENOMEM;
	}
	for (unsigned output = 0; output < count; output++)
		(is_dense(&shape, count) ? cover : interpolate)(axis, &shape, output);
	kx_status status = make_groups(axis);
	if (status)
		kx_axis_done(axis);
	return status;
}

void kx_axis_done(struct kx_axis *axis)
{
	free(axis->first);
	free(axis->weights);
	free(axis->groups);
	*axis = (struct kx_axis){0};
}
