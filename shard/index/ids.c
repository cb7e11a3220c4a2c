/* Small things that several parts need. */
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "common/learn/learn.h"
#include "shard/ann/ivf_half.h"
#include "shard/index/internal.h"

#define HALF_MOST 65504.0f
#define INFINITE_BITS 0x7f800000u

void kx_iwriter_lock(struct kx_index *index)
{
	uint64_t turn;

	pthread_mutex_lock(&index->writer);
	turn = index->writer_next++;
	while (index->writer_now != turn)
		pthread_cond_wait(&index->writer_turn, &index->writer);
	pthread_mutex_unlock(&index->writer);
}

void kx_iwriter_unlock(struct kx_index *index)
{
	pthread_mutex_lock(&index->writer);
	index->writer_now++;
	pthread_cond_broadcast(&index->writer_turn);
	pthread_mutex_unlock(&index->writer);
}

bool kx_iwriter_wanted(struct kx_index *index)
{
	bool wanted;

	pthread_mutex_lock(&index->writer);
	wanted = index->writer_next - index->writer_now > 1;
	pthread_mutex_unlock(&index->writer);
	return wanted;
}

kx_status kx_ids_reserve(struct kx_ids *ids, uint32_t more)
{
	uint32_t cap = ids->cap ? ids->cap : 64;
	uint32_t *list;

	while (cap - ids->count < more)
		cap *= 2;
	if (cap == ids->cap)
		return KX_OK;
	list = realloc(ids->list, cap * sizeof(*list));
	if (!list)
		return KX_ENOMEM;
	ids->list = list;
	ids->cap = cap;
	return KX_OK;
}

kx_status kx_ids_add(struct kx_ids *ids, uint32_t id)
{
	kx_status status = kx_ids_reserve(ids, 1);

	if (!status)
		ids->list[ids->count++] = id;
	return status;
}

void kx_ids_done(struct kx_ids *ids)
{
	free(ids->list);
	*ids = (struct kx_ids){0};
}

#ifdef __x86_64__
__attribute__((target("avx,f16c"))) static size_t convert(const uint16_t *halves, size_t count, float *ret)
{
	size_t i = 0;

	for (; i + 8 <= count; i += 8)
		_mm256_storeu_ps(ret + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(halves + i))));
	return i;
}

__attribute__((target("avx,f16c"))) static size_t convert_back(const float *floats, size_t count, uint16_t *ret)
{
	size_t i = 0;

	for (; i + 8 <= count; i += 8)
		_mm_storeu_si128((__m128i *)(void *)(ret + i),
				 _mm256_cvtps_ph(_mm256_loadu_ps(floats + i), _MM_FROUND_TO_NEAREST_INT));
	return i;
}
#endif

void kx_ihalves_to_floats(const uint16_t *halves, size_t count, float *ret)
{
	size_t i = 0;

#ifdef __x86_64__
	if (__builtin_cpu_supports("avx2"))
		i = convert(halves, count, ret);
#endif
	for (; i < count; i++)
		ret[i] = kx_half_to_float(halves[i]);
}

void kx_ifloats_to_halves(const float *floats, size_t count, uint16_t *ret)
{
	size_t i = 0;

#ifdef __x86_64__
	if (__builtin_cpu_supports("avx2"))
		i = convert_back(floats, count, ret);
#endif
	for (; i < count; i++)
		ret[i] = kx_half_of_float(floats[i]);
}

float kx_idistance2(const float *a, const float *b, uint32_t dim)
{
	float lanes[8] = {0};
	float sum = 0;
	uint32_t i = 0;

	for (; i + 8 <= dim; i += 8)
		for (uint32_t j = 0; j < 8; j++)
			lanes[j] += (a[i + j] - b[i + j]) * (a[i + j] - b[i + j]);
	for (; i < dim; i++)
		sum += (a[i] - b[i]) * (a[i] - b[i]);
	for (uint32_t j = 0; j < 8; j++)
		sum += lanes[j];
	return sum;
}

/* Without their signs the bits of floats are in the order of what they stand for, and none beyond infinity's is a number. */
static uint32_t bits_of(float value)
{
	uint32_t bits;

	memcpy(&bits, &value, sizeof(bits));
	return bits & 0x7fffffffu;
}

static uint32_t largest_bits(const float *vector, uint32_t dim)
{
	int32_t most = 0;

	for (uint32_t i = 0; i < dim; i++)
		most = (int32_t)bits_of(vector[i]) > most ? (int32_t)bits_of(vector[i]) : most;
	return (uint32_t)most;
}

static kx_status fail_infinite(const struct kx_ispace *space, const float *vector, struct kx_error *error)
{
	uint32_t at = 0;

	while (bits_of(vector[at]) < INFINITE_BITS)
		at++;
	return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "space %s: element %u of the vector is no finite number",
			    space->record.name, at);
}

kx_status kx_ivector_check(const struct kx_ispace *space, const float *vector, uint32_t dim, float *ret,
			   struct kx_error *error)
{
	uint32_t bits;
	float largest;

	if (dim != space->record.recipe.dim)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "space %s: a vector of %u dimensions, not %u",
				    space->record.name, dim, space->record.recipe.dim);
	bits = largest_bits(vector, dim);
	if (bits >= INFINITE_BITS)
		return fail_infinite(space, vector, error);
	memcpy(&largest, &bits, sizeof(largest));
	if (largest == 0.0f)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "space %s: the vector is all zero",
				    space->record.name);
	memcpy(ret, vector, dim * sizeof(*ret));
	if (space->record.recipe.metric == KX_METRIC_COSINE)
		(void)kx_learn_normalize(ret, dim); /* of any length: it squares in double */
	else if (largest > HALF_MOST)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
				    "space %s: an element of the vector is over %g, the most that is kept",
				    space->record.name, (double)HALF_MOST);
	return KX_OK;
}

kx_status kx_ispace_get(struct kx_index *index, uint32_t number, struct kx_ispace **ret, struct kx_error *error)
{
	if (number >= atomic_load(&index->space_count))
		return kx_error_set(error, KX_ENOTFOUND, KX_ERROR_POISON, "the index has no space %u", number);
	*ret = index->spaces[number];
	return KX_OK;
}

size_t kx_ifamily(const struct kx_index *index, enum kx_index_family family)
{
	return index->options.family + family;
}

kx_status kx_ineed_writer(const struct kx_index *index, struct kx_error *error)
{
	if (!index->options.read_only)
		return KX_OK;
	return kx_error_set(error, KX_EPERM, KX_ERROR_FATAL, "the index is open for reading only");
}

kx_status kx_ibroken(const struct kx_ispace *space, struct kx_error *error)
{
	if (!space->broken)
		return KX_OK;
	return kx_error_set(error, KX_ENOMEM, KX_ERROR_FATAL, "space %s: a %s ended half-way; open the index again",
			    space->record.name, space->broken);
}

kx_status kx_iget(struct kx_index *index, enum kx_index_family family, struct kx_ikey key, struct kx_buf *out,
		  struct kx_error *error)
{
	return kx_kv_get(index->options.kv, kx_ifamily(index, family), key.bytes, key.len, out, error);
}

void kx_iput(struct kx_index *index, struct kx_kv_batch *batch, enum kx_index_family family, struct kx_ikey key,
	     const void *value, size_t len)
{
	kx_kv_batch_put(batch, kx_ifamily(index, family), key.bytes, key.len, value, len);
}

void kx_idelete(struct kx_index *index, struct kx_kv_batch *batch, enum kx_index_family family, struct kx_ikey key)
{
	kx_kv_batch_delete(batch, kx_ifamily(index, family), key.bytes, key.len);
}
