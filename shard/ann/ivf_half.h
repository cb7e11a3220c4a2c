/* IEEE half precision, in plain C: both ways exact or rounded to nearest even. Layer: shard/ann. */
#ifndef KX_SHARD_ANN_IVF_HALF_H
#define KX_SHARD_ANN_IVF_HALF_H

#include <stdint.h>
#include <string.h>

static inline float kx_half_to_float(uint16_t half)
{
	uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
	uint32_t rest = half & 0x7fffu;
	uint32_t bits;
	float value;

	if (rest >= 0x7c00u) { /* infinity and what is no number */
		bits = sign | 0x7f800000u | (rest & 0x3ffu) << 13;
		memcpy(&value, &bits, sizeof(value));
		return value;
	}
	if (rest < 0x400u) { /* subnormal: a multiple of 2^-24 */
		value = (float)rest * 0x1p-24f;
		return sign ? -value : value;
	}
	bits = sign | ((rest << 13) + (112u << 23));
	memcpy(&value, &bits, sizeof(value));
	return value;
}

/* What is too large becomes infinity. */
static inline uint16_t kx_half_of_float(float value)
{
	uint32_t bits, sign, mantissa;
	int exponent;

	memcpy(&bits, &value, sizeof(bits));
	sign = bits >> 16 & 0x8000u;
	exponent = (int)(bits >> 23 & 0xffu) - 112;
	mantissa = bits & 0x7fffffu;
	if (exponent == 0xff - 112)
		return (uint16_t)(sign | 0x7c00u | (mantissa ? 0x200u | mantissa >> 13 : 0));
	if (exponent <= 0) {
		uint32_t shift = (uint32_t)(14 - exponent), half, rest;

		if (exponent < -10)
			return (uint16_t)sign;
		mantissa |= 0x800000u;
		half = mantissa >> shift;
		rest = mantissa & ((1u << shift) - 1);
		half += rest > 1u << (shift - 1) || (rest == 1u << (shift - 1) && half & 1);
		return (uint16_t)(sign | half);
	}
	/* The carry of rounding walks into the exponent, and from the largest to infinity. */
	bits = (uint32_t)exponent << 10 | mantissa >> 13;
	mantissa &= 0x1fffu;
	bits += mantissa > 0x1000u || (mantissa == 0x1000u && bits & 1);
	return (uint16_t)(sign | (bits > 0x7c00u ? 0x7c00u : bits));
}

#endif
