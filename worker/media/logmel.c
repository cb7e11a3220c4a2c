#include "worker/media/logmel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW 400u
#define HOP 160u
#define FFT 512u
#define HALF (FFT / 2)
#define BINS (HALF + 1)
#define STEP_HOPS (KX_PATCH_HOPS / 2)
#define SHORTEST (KX_LOGMEL_RATE / 10)
#define LOW_HZ 125.0
#define HIGH_HZ 7500.0
#define LOG_OFFSET 0.001f
/* Hops are transformed LANES at a time, one in each lane, so that the compiler's vectors carry the FFT. */
#define LANES 16u
#define CHUNK ((LANES - 1) * HOP + WINDOW)

typedef float lanes[LANES];

/* A triangle's weights over the bins it covers. */
struct band {
	unsigned first;
	unsigned count;
	float weights[BINS];
};

struct kx_logmel {
	kx_logmel_emit *emit;
	void *ctx;
	void (*analyse)(struct kx_logmel *logmel);
	uint64_t total;  /* samples so far */
	uint64_t index;  /* of the next patch */
	size_t held;     /* samples in chunk */
	size_t rows;     /* of the patch that are there */
	float window[WINDOW];
	float cosine[FFT];
	float sine[FFT];
	uint16_t reversed[HALF];
	struct band bands[KX_PATCH_BANDS];
	float chunk[CHUNK];
	float patch[KX_PATCH_HOPS][KX_PATCH_BANDS];
	lanes real[HALF];
	lanes imag[HALF];
	lanes magnitude[BINS];
};

static double mel(double hz)
{
	return 1127.0 * log(1.0 + hz / 700.0);
}

/* tf.signal.linear_to_mel_weight_matrix: triangles in mel, bin 0 left out. */
static void make_bands(struct kx_logmel *logmel)
{
	double low = mel(LOW_HZ);
	double step = (mel(HIGH_HZ) - low) / (KX_PATCH_BANDS + 1);
	for (unsigned b = 0; b < KX_PATCH_BANDS; b++) {
		struct band *band = &logmel->bands[b];
		double left = low + step * b;
		for (unsigned bin = 1; bin < BINS; bin++) {
			double at = mel((double)bin * KX_LOGMEL_RATE / FFT);
			double weight = fmin((at - left) / step, (left + 2 * step - at) / step);
			if (weight <= 0)
				continue;
			if (!band->count)
				band->first = bin;
			band->weights[band->count++] = (float)weight;
		}
	}
}

static void make_tables(struct kx_logmel *logmel)
{
	for (unsigned i = 0; i < WINDOW; i++)
		logmel->window[i] = (float)(0.5 - 0.5 * cos(2 * M_PI * i / WINDOW));
	for (unsigned i = 0; i < FFT; i++) {
		logmel->cosine[i] = (float)cos(2 * M_PI * i / FFT);
		logmel->sine[i] = (float)sin(2 * M_PI * i / FFT);
	}
	for (unsigned i = 0; i < HALF; i++) {
		unsigned reversed = 0;
		for (unsigned bit = 1; bit < HALF; bit <<= 1)
			reversed = reversed << 1 | ((i & bit) != 0);
		logmel->reversed[i] = (uint16_t)reversed;
	}
	make_bands(logmel);
}

void kx_logmel_free(struct kx_logmel *logmel)
{
	free(logmel);
}

/* Windows the hops and packs even samples as real, odd ones as imaginary parts, in bit-reversed order. */
static inline __attribute__((always_inline)) void load(struct kx_logmel *logmel)
{
	for (unsigned i = 0; i < HALF; i++) {
		unsigned to = logmel->reversed[i];
		if (2 * i >= WINDOW) {
			memset(logmel->real[to], 0, sizeof(lanes));
			memset(logmel->imag[to], 0, sizeof(lanes));
			continue;
		}
		const float *from = logmel->chunk + 2 * (size_t)i;
		for (unsigned lane = 0; lane < LANES; lane++) {
			logmel->real[to][lane] = from[lane * HOP] * logmel->window[2 * i];
			logmel->imag[to][lane] = from[lane * HOP + 1] * logmel->window[2 * i + 1];
		}
	}
}

static inline __attribute__((always_inline)) void butterfly(float *restrict ar, float *restrict ai, float *restrict br,
							    float *restrict bi, float c, float s)
{
	for (unsigned lane = 0; lane < LANES; lane++) {
		float tr = br[lane] * c + bi[lane] * s;
		float ti = bi[lane] * c - br[lane] * s;
		br[lane] = ar[lane] - tr;
		bi[lane] = ai[lane] - ti;
		ar[lane] += tr;
		ai[lane] += ti;
	}
}

/* Radix 2, decimation in time, 256 complex points. */
static inline __attribute__((always_inline)) void transform(struct kx_logmel *logmel)
{
	for (unsigned half = 1; half < HALF; half *= 2) {
		unsigned stride = FFT / (2 * half); /* of the twiddles, which are for FFT points */
		for (unsigned k = 0; k < half; k++)
			for (unsigned a = k; a < HALF; a += 2 * half)
				butterfly(logmel->real[a], logmel->imag[a], logmel->real[a + half],
					  logmel->imag[a + half], logmel->cosine[k * stride],
					  logmel->sine[k * stride]);
	}
}

/* Takes the spectrum of the real signal out of that of the packed one, as magnitudes. */
static inline __attribute__((always_inline)) void magnitudes(struct kx_logmel *logmel)
{
	for (unsigned bin = 0; bin <= HALF; bin++) {
		const float *ar = logmel->real[bin % HALF];
		const float *ai = logmel->imag[bin % HALF];
		const float *br = logmel->real[(HALF - bin) % HALF];
		const float *bi = logmel->imag[(HALF - bin) % HALF];
		float c = logmel->cosine[bin];
		float s = logmel->sine[bin];
		float *out = logmel->magnitude[bin];
		for (unsigned lane = 0; lane < LANES; lane++) {
			float even_r = 0.5f * (ar[lane] + br[lane]);
			float even_i = 0.5f * (ai[lane] - bi[lane]);
			float odd_r = 0.5f * (ai[lane] + bi[lane]);
			float odd_i = 0.5f * (br[lane] - ar[lane]);
			float re = even_r + odd_r * c + odd_i * s;
			float im = even_i + odd_i * c - odd_r * s;
			out[lane] = sqrtf(re * re + im * im);
		}
	}
}

static inline __attribute__((always_inline)) void project(struct kx_logmel *logmel)
{
	for (unsigned b = 0; b < KX_PATCH_BANDS; b++) {
		const struct band *band = &logmel->bands[b];
		lanes sum = {0};
		for (unsigned i = 0; i < band->count; i++)
			for (unsigned lane = 0; lane < LANES; lane++)
				sum[lane] += band->weights[i] * logmel->magnitude[band->first + i][lane];
		for (unsigned lane = 0; lane < LANES; lane++)
			logmel->patch[logmel->rows + lane][b] = logf(sum[lane] + LOG_OFFSET);
	}
}

/* What a chunk's rows are made by. No operation is fused with another (-ffp-contract=off) and each lane is on its own, so
 * wider vectors give the same bits. */
static inline __attribute__((always_inline)) void analyse_any(struct kx_logmel *logmel)
{
	load(logmel);
	transform(logmel);
	magnitudes(logmel);
	project(logmel);
}

static void analyse(struct kx_logmel *logmel)
{
	analyse_any(logmel);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void analyse_avx2(struct kx_logmel *logmel)
{
	analyse_any(logmel);
}
#endif

static void choose(struct kx_logmel *logmel)
{
	logmel->analyse = analyse;
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx2"))
		logmel->analyse = analyse_avx2;
#endif
}

kx_status kx_logmel_new(kx_logmel_emit *emit, void *ctx, struct kx_logmel **ret_logmel)
{
	struct kx_logmel *logmel = calloc(1, sizeof(*logmel));
	if (!logmel)
		return KX_ENOMEM;
	logmel->emit = emit;
	logmel->ctx = ctx;
	make_tables(logmel);
	choose(logmel);
	*ret_logmel = logmel;
	return KX_OK;
}

/* A full chunk becomes LANES rows; a full patch is handed on and its second half becomes the next one's first. */
static kx_status take_chunk(struct kx_logmel *logmel)
{
	logmel->analyse(logmel);
	logmel->rows += LANES;
	memmove(logmel->chunk, logmel->chunk + LANES * HOP, (CHUNK - LANES * HOP) * sizeof(float));
	logmel->held = CHUNK - LANES * HOP;
	if (logmel->rows < KX_PATCH_HOPS)
		return KX_OK;
	kx_status status = logmel->emit(logmel->ctx, logmel->index, logmel->patch[0]);
	logmel->index++;
	memmove(logmel->patch[0], logmel->patch[STEP_HOPS], STEP_HOPS * sizeof(logmel->patch[0]));
	logmel->rows = STEP_HOPS;
	return status;
}

/* Samples in floats can be anything in a damaged file, and a square of 1e30 is no float. */
static void copy_bounded(float *ret, const float *samples, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		float bounded = samples[i] < -KX_LOGMEL_LOUDEST ? -KX_LOGMEL_LOUDEST : samples[i];

		bounded = bounded > KX_LOGMEL_LOUDEST ? KX_LOGMEL_LOUDEST : bounded;
		ret[i] = isnan(bounded) ? 0.0f : bounded;
	}
}

kx_status kx_logmel_push(struct kx_logmel *logmel, const float *samples, size_t count)
{
	logmel->total += count;
	while (count) {
		size_t take = CHUNK - logmel->held;
		if (take > count)
			take = count;
		copy_bounded(logmel->chunk + logmel->held, samples, take);
		logmel->held += take;
		samples += take;
		count -= take;
		if (logmel->held < CHUNK)
			break;
		kx_status status = take_chunk(logmel);
		if (status)
			return status;
	}
	return KX_OK;
}

kx_status kx_logmel_finish(struct kx_logmel *logmel)
{
	static const float silence[HOP];
	if (logmel->total <= SHORTEST)
		return KX_OK;
	while (logmel->total < KX_LOGMEL_PATCH_SAMPLES) {
		size_t rest = (size_t)(KX_LOGMEL_PATCH_SAMPLES - logmel->total);
		kx_status status = kx_logmel_push(logmel, silence, rest < HOP ? rest : HOP);
		if (status)
			return status;
	}
	return KX_OK;
}
