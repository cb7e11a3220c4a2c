#include "worker/media/tone.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* A sixteenth of a step of 8 bits. */
#define SIGNAL_BITS 4
#define SIGNAL_MAX (255 << SIGNAL_BITS)

/* Light is counted in SDR's white. */
#define WHITE_NITS 203.0
#define PEAK_NITS 1000.0
#define PQ_NITS 10000.0
#define HLG_GAMMA 1.2

/* Tables over light have so many entries for each doubling, and begin at 2^low. */
struct steps {
	int low;
	unsigned octaves;
	unsigned bits; /* log2 of entries to an octave */
};
#define GAIN_BITS 9
#define GAIN_OCTAVES 10
#define SCENE_BITS 9
#define SCENE_OCTAVES 20
#define CODE_BITS 10
#define CODE_OCTAVES 24
static const struct steps gain_steps = {-4, GAIN_OCTAVES, GAIN_BITS};
static const struct steps scene_steps = {-SCENE_OCTAVES, SCENE_OCTAVES, SCENE_BITS};
static const struct steps code_steps = {-CODE_OCTAVES, CODE_OCTAVES, CODE_BITS};

struct kx_tone {
	bool hlg;
	float light[SIGNAL_MAX + 1]; /* of the signal; HLG: of the scene, 0..1 */
	float gain[GAIN_OCTAVES << GAIN_BITS];
	float scene[SCENE_OCTAVES << SCENE_BITS]; /* HLG: the display's light for the scene's, by its luminance */
	uint8_t code[CODE_OCTAVES << CODE_BITS];
	float primaries[3][3];
};

/* Entry of a table for x > 0, with the ends standing for what is beyond them. A float's bits are its logarithm,
 * as straight lines between powers of two. */
static unsigned step_of(struct steps steps, float x)
{
	int32_t bits;
	memcpy(&bits, &x, sizeof(bits));
	int32_t index = (bits - ((127 + steps.low) << 23)) >> (23 - steps.bits);
	int32_t count = (int32_t)(steps.octaves << steps.bits);
	return (unsigned)(index < 0 ? 0 : index >= count ? count - 1 : index);
}

/* The middle of what an entry stands for. */
static double step_value(struct steps steps, unsigned index)
{
	double part = ((index & ((1u << steps.bits) - 1)) + 0.5) / (1u << steps.bits);
	return ldexp(1 + part, steps.low + (int)(index >> steps.bits));
}

/* The C library's powers differ in their last bits between CPUs with and without fused multiply-add; sums and
 * products alone do not. Both series are good to the last few bits of a double. */
static double log2_of(double x)
{
	int exponent;
	double mantissa = frexp(x, &exponent);
	double t = (mantissa - 1) / (mantissa + 1); /* -1/3..0 */
	double sum = 0;
	for (int k = 41; k >= 1; k -= 2)
		sum = sum * t * t + 1.0 / k;
	return exponent + 2 * t * sum * 1.4426950408889634;
}

static double exp2_of(double x)
{
	double whole = floor(x + 0.5);
	double y = (x - whole) * 0.6931471805599453; /* -0.35..0.35 */
	double sum = 1;
	for (int k = 16; k >= 1; k--)
		sum = 1 + sum * y / k;
	return ldexp(sum, (int)whole);
}

static double power(double x, double exponent)
{
	return x > 0 ? exp2_of(exponent * log2_of(x)) : 0;
}

/* SMPTE ST 2084, for signals and light of 0..1. */
#define PQ_M1 (2610.0 / 16384)
#define PQ_M2 (2523.0 / 4096 * 128)
#define PQ_C1 (3424.0 / 4096)
#define PQ_C2 (2413.0 / 4096 * 32)
#define PQ_C3 (2392.0 / 4096 * 32)

static double pq_light(double signal)
{
	double p = power(signal, 1 / PQ_M2);
	double over = p - PQ_C1;
	return over > 0 ? power(over / (PQ_C2 - PQ_C3 * p), 1 / PQ_M1) : 0;
}

static double pq_signal(double light)
{
	double p = power(light, PQ_M1);
	return power((PQ_C1 + PQ_C2 * p) / (1 + PQ_C3 * p), PQ_M2);
}

/* BT.2100, table 5: inverse of the OETF. */
static double hlg_light(double signal)
{
	const double a = 0.17883277;
	const double b = 0.28466892;
	const double c = 0.55991073;
	if (signal <= 0.5)
		return signal * signal / 3;
	return (exp2_of((signal - c) / a * 1.4426950408889634) + b) / 12;
}

/* BT.2390's EETF between blacks of 0: light after it, both in SDR's white. */
static double brought_down(double light)
{
	double peak = pq_signal(PEAK_NITS / PQ_NITS);
	double target = pq_signal(WHITE_NITS / PQ_NITS) / peak;
	double knee = 1.5 * target - 0.5;
	double e = pq_signal(light * WHITE_NITS / PQ_NITS) / peak;
	if (e < knee)
		return light;
	double t = ((e < 1 ? e : 1) - knee) / (1 - knee);
	double t2 = t * t;
	double t3 = t2 * t;
	e = (2 * t3 - 3 * t2 + 1) * knee + (t3 - 2 * t2 + t) * (1 - knee) + (3 * t2 - 2 * t3) * target;
	return pq_light(e * peak) * PQ_NITS / WHITE_NITS;
}

static void fill(struct kx_tone *tone)
{
	for (unsigned i = 0; i <= SIGNAL_MAX; i++) {
		double signal = (double)i / SIGNAL_MAX;
		tone->light[i] = (float)(tone->hlg ? hlg_light(signal) : pq_light(signal) * PQ_NITS / WHITE_NITS);
	}
	for (unsigned i = 0; i < KX_ARRAY_LEN(tone->gain); i++) {
		double light = step_value(gain_steps, i);
		tone->gain[i] = (float)(brought_down(light) / light);
	}
	for (unsigned i = 0; i < KX_ARRAY_LEN(tone->code); i++)
		tone->code[i] = (uint8_t)(255 * power(step_value(code_steps, i), 1 / 2.4) + 0.5);
}

static void fill_scene(struct kx_tone *tone)
{
	for (unsigned i = 0; i < KX_ARRAY_LEN(tone->scene); i++)
		tone->scene[i] = (float)(PEAK_NITS / WHITE_NITS * power(step_value(scene_steps, i), HLG_GAMMA - 1));
}

bool kx_tone_needed(enum AVColorTransferCharacteristic transfer)
{
	return transfer == AVCOL_TRC_SMPTE2084 || transfer == AVCOL_TRC_ARIB_STD_B67;
}

static void choose_primaries(struct kx_tone *tone, enum AVColorPrimaries primaries)
{
	/* BT.2087, 2.1; P3 with D65 and BT.709 by the same way (SMPTE RP 177). */
	static const float from_2020[3][3] = {
		{1.660491f, -0.587641f, -0.072850f}, {-0.124550f, 1.132900f, -0.008349f}, {-0.018151f, -0.100579f, 1.118730f}};
	static const float from_p3[3][3] = {
		{1.224940f, -0.224940f, 0.0f}, {-0.042057f, 1.042057f, 0.0f}, {-0.019638f, -0.078636f, 1.098274f}};
	static const float same[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
	const float(*chosen)[3] = primaries == AVCOL_PRI_SMPTE432 ? from_p3
				  : primaries == AVCOL_PRI_BT709  ? same
								  : from_2020;
	memcpy(tone->primaries, chosen, sizeof(tone->primaries));
}

kx_status kx_tone_new(enum AVColorTransferCharacteristic transfer, enum AVColorPrimaries primaries,
		      struct kx_tone **ret_tone)
{
	struct kx_tone *tone = calloc(1, sizeof(*tone));
	if (!tone)
		return KX_ENOMEM;
	tone->hlg = transfer == AVCOL_TRC_ARIB_STD_B67;
	choose_primaries(tone, primaries);
	fill(tone);
	if (tone->hlg)
		fill_scene(tone);
	*ret_tone = tone;
	return KX_OK;
}

void kx_tone_free(struct kx_tone *tone)
{
	free(tone);
}

static float largest(const float rgb[3])
{
	float max = rgb[0] > rgb[1] ? rgb[0] : rgb[1];
	return max > rgb[2] ? max : rgb[2];
}

static void tone_pixel(const struct kx_tone *tone, const int32_t signal[3], uint8_t *out)
{
	float light[3];
	for (unsigned i = 0; i < 3; i++)
		light[i] = tone->light[signal[i]];
	float gain = 1;
	if (tone->hlg) {
		/* BT.2100, table 5: the OOTF works on the scene's luminance. */
		float luminance = 0.2627f * light[0] + 0.6780f * light[1] + 0.0593f * light[2];
		gain = tone->scene[step_of(scene_steps, luminance)];
	}
	float max = largest(light) * gain;
	gain *= tone->gain[step_of(gain_steps, max)];
	for (unsigned i = 0; i < 3; i++) {
		const float *row = tone->primaries[i];
		float sum = (row[0] * light[0] + row[1] * light[1] + row[2] * light[2]) * gain;
		out[i] = sum <= 0 ? 0 : tone->code[step_of(code_steps, sum)];
	}
}

void kx_tone_row(const struct kx_tone *tone, const int16_t *const in[3], unsigned width,
		 const struct kx_matrix *m, uint8_t *rgb)
{
	const int shift = KX_MATRIX_SHIFT - SIGNAL_BITS;
	/* The matrix rounds to a step of 8 bits; here it is to a finer one. */
	const int32_t rounding = (1 << (shift - 1)) - (1 << (KX_MATRIX_SHIFT - 1));
	for (unsigned x = 0; x < width; x++) {
		int32_t signal[3];
		for (unsigned i = 0; i < 3; i++) {
			int32_t sum = m->c[i][0] * in[0][x] + m->c[i][1] * in[1][x] + m->c[i][2] * in[2][x] + m->bias[i];
			int32_t value = (sum + rounding) >> shift;
			signal[i] = value < 0 ? 0 : value > SIGNAL_MAX ? SIGNAL_MAX : value;
		}
		tone_pixel(tone, signal, rgb);
		rgb += 3;
	}
}
