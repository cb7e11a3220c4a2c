/* One side of a plane to one side of the output: which samples each output takes, with which weights.
 * Layer: worker/media. Integers only: the same weights on every machine. */
#ifndef KX_MEDIA_SCALE_AXIS_H
#define KX_MEDIA_SCALE_AXIS_H

#include <stdint.h>

#include "common/base/error.h"

#define KX_AXIS_BITS 14
#define KX_AXIS_ONE (1 << KX_AXIS_BITS)

/* Where the samples lie along the side, in half pixels of the picture: sample i covers
 * [origin2 + i * step2, origin2 + (i + 1) * step2), and the first and the last reach as far as the picture does. */
struct kx_axis_shape {
	int64_t extent; /* the picture's side, pixels */
	int64_t samples;
	int64_t origin2;
	int64_t step2;
};

/* So many neighbouring outputs whose taps all lie among so few samples that two wide registers hold them. Then a tap is
 * picked out of registers instead of memory. */
#define KX_GROUP_OUTPUTS 16u
#define KX_GROUP_SAMPLES 64u
#define KX_GROUP_PAIRS 4u
struct kx_axis_group {
	uint32_t first; /* sample */
	uint32_t span;  /* samples */
	uint32_t at;    /* output */
	/* Two taps of each output side by side, pair by pair: where each lies after `first`, and its weight. */
	uint16_t pick[KX_GROUP_PAIRS][2 * KX_GROUP_OUTPUTS];
	int16_t weights[KX_GROUP_PAIRS][2 * KX_GROUP_OUTPUTS];
};

struct kx_axis {
	unsigned count;   /* outputs */
	unsigned taps;    /* an output; those that fill up weigh 0 and may lie past the last sample */
	uint32_t *first;  /* [count] the sample of the first tap, always there */
	int16_t *weights; /* [count][taps], none negative, of sum KX_AXIS_ONE */
	/* NULL: taps lie too far apart for groups, or there are too few outputs. The last group ends with the outputs, and has
	 * some of those of the one before. */
	struct kx_axis_group *groups;
	uint32_t span; /* the longest of the groups' */
};

/* Samples that an output may take part of, at most. */
unsigned kx_axis_taps(const struct kx_axis_shape *shape, unsigned count);

/* Makes an axis of `count` outputs; taps is rounded up to a multiple of `multiple`. Where samples are at least as
 * dense as outputs, an output is the mean over what it covers, parts of samples counted as such (box filter);
 * where they are not, the line between the two samples beside its middle. KX_ENOMEM. */
kx_status kx_axis_init(struct kx_axis *axis, struct kx_axis_shape shape, unsigned count, unsigned multiple)
	KX_MUST_CHECK;
void kx_axis_done(struct kx_axis *axis);

static inline unsigned kx_axis_groups(const struct kx_axis *axis)
{
	return (axis->count + KX_GROUP_OUTPUTS - 1) / KX_GROUP_OUTPUTS;
}

#endif
