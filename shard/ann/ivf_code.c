/* Codes of one bit a dimension (RaBitQ: Gao and Long, SIGMOD 2024), arranged so that one table a query serves all cells.
 *
 * With residual r = x - c, rotation P and signs s of Pr:
 *   <q, x> = <q, c> + <q - c, r> + <c, r>,  and <q - c, r> is estimated, without bias, by  mul * <s, Pq - Pc>  where
 *   mul = |r|^2 / <s, Pr>.
 * What does not depend on q goes into add = <c, r> - mul * <s, Pc>, and the estimate is <q, c> + add + mul * <s, Pq>.
 */
#include "shard/ann/ivf_impl.h"

static float dot(const float *a, const float *b, uint32_t dim)
{
	double lanes[8] = {0};
	double sum = 0;
	uint32_t i = 0;

	for (; i + 8 <= dim; i += 8)
		for (uint32_t j = 0; j < 8; j++)
			lanes[j] += (double)a[i + j] * (double)b[i + j];
	for (; i < dim; i++)
		sum += (double)a[i] * (double)b[i];
	for (uint32_t j = 0; j < 8; j++)
		sum += lanes[j];
	return (float)sum;
}

size_t kx_ivf_entry_bytes(const struct kx_ivf *ivf)
{
	return sizeof(struct kx_ivf_entry_head) + ivf->code_bytes;
}

/* The signs of r go to code; returns the sum of |r|, and <signs, other>. */
static double take_signs(const float *r, const float *other, uint32_t padded, uint8_t *code, double *ret_other)
{
	double sum = 0, sum_other = 0;

	for (uint32_t byte = 0; byte < padded / 8; byte++) {
		unsigned bits = 0;
		float part = 0, part_other = 0;

		for (unsigned i = 0; i < 8; i++) {
			float value = r[byte * 8 + i];
			float of_other = other[byte * 8 + i];
			bool positive = value >= 0.0f;

			bits |= (unsigned)positive << i;
			part += positive ? value : -value;
			part_other += positive ? of_other : -of_other;
		}
		code[byte] = (uint8_t)bits;
		sum += (double)part;
		sum_other += (double)part_other;
	}
	*ret_other = sum_other;
	return sum;
}

kx_status kx_ivf_encode(const struct kx_ivf *ivf, uint32_t cell, uint32_t row, const float *vector, void *ret_entry)
{
	const struct kx_ivf_cell *in = kx_ivf_cell_of(ivf, cell);
	float residual[KX_IVF_PADDED_MAX], rotated[KX_IVF_PADDED_MAX], centroid[KX_IVF_PADDED_MAX];
	uint8_t code[KX_IVF_PADDED_MAX / 8];
	struct kx_ivf_entry_head head = {.row = row};
	double size, with_centroid, norm2;

	if (!in || row >= KX_IVF_ROW_MAX)
		return KX_EINVAL;
	for (uint32_t i = 0; i < ivf->recipe.dim; i++)
		residual[i] = vector[i] - in->centroid[i];
	kx_ivf_rotate(&ivf->rotation, ivf->kernels, residual, rotated);
	kx_ivf_rotate(&ivf->rotation, ivf->kernels, in->centroid, centroid);
	size = take_signs(rotated, centroid, ivf->rotation.padded, code, &with_centroid);
	norm2 = (double)dot(residual, residual, ivf->recipe.dim);
	head.mul = size > 0 ? (float)(norm2 / size) : 0.0f;
	head.add = dot(in->centroid, residual, ivf->recipe.dim) - head.mul * (float)with_centroid;
	if (!isfinite(head.add) || !isfinite(head.mul))
		return KX_EINVAL;
	memcpy(ret_entry, &head, sizeof(head));
	memcpy((uint8_t *)ret_entry + sizeof(head), code, ivf->code_bytes);
	return KX_OK;
}

static float reach_of(const float *v)
{
	return fabsf(v[0]) + fabsf(v[1]) + fabsf(v[2]) + fabsf(v[3]);
}

void kx_ivf_lut_make(const float *rotated, uint32_t padded, const struct kx_ivf_kernels *kernels, uint8_t *lut,
		     struct kx_ivf_lut *ret)
{
	float reach = 0.0f, total = 0.0f, step;

	for (uint32_t i = 0; i < padded; i += 4) {
		float of_four = reach_of(rotated + i);

		reach = of_four > reach ? of_four : reach;
		total += of_four;
	}
	step = reach > 0.0f ? 255.0f / (2.0f * reach) : 0.0f;
	kernels->lut(rotated, padded, step, lut);
	ret->scale = 2.0f * reach / 255.0f;
	ret->offset = -total;
	ret->variance = ret->scale * ret->scale * (float)padded / 48.0f; /* of a step, evenly, for each four elements */
}

static uint8_t *block_at(const struct kx_ivf *ivf, const struct kx_ivf_place *place, uint32_t slot)
{
	return place->blocks + slot / KX_IVF_BLOCK * kx_ivf_lead_block_bytes(ivf);
}

/* From the leading part alone the same estimate follows with a factor that is larger by as much as it is less than all: so much
 * of <s, Pr> is expected in it. add = <c, r> - mul * <s, Pc> as in an entry. */
static void write_lead(const struct kx_ivf *ivf, struct kx_ivf_entry_head head, const uint8_t *code, const float *centroid,
		       uint8_t *block, uint32_t at)
{
	uint32_t lead = ivf->lead;
	float of_lead = ivf->kernels->signed_sum(code, centroid, lead);
	float of_rest = ivf->kernels->signed_sum(code + lead / 8, centroid + lead, ivf->rotation.padded - lead);
	float mul = head.mul * (float)ivf->rotation.padded / (float)lead;
	uint16_t *factors = (uint16_t *)(void *)block;

	factors[at] = kx_ivf_factor_of(head.add + head.mul * (of_rest + of_lead) - mul * of_lead);
	factors[KX_IVF_BLOCK + at] = kx_ivf_factor_of(mul);
	ivf->kernels->pack(block + KX_IVF_FACTOR_BYTES, lead / 8, at, code);
}

void kx_ivf_place_write(const struct kx_ivf *ivf, const struct kx_ivf_cell *cell, const struct kx_ivf_place *place,
			uint32_t at, const uint8_t *entries, size_t count)
{
	float centroid[KX_IVF_PADDED_MAX];

	kx_ivf_rotate(&ivf->rotation, ivf->kernels, cell->centroid, centroid);
	for (size_t i = 0; i < count; i++, at++, entries += kx_ivf_entry_bytes(ivf)) {
		struct kx_ivf_entry_head head = kx_ivf_entry_head(entries);
		const struct kx_ivf_tail start = {head.add, head.mul};
		const uint8_t *code = entries + sizeof(head);
		uint8_t *tail = place->tails + at * kx_ivf_tail_bytes(ivf);

		place->rows[at] = head.row;
		write_lead(ivf, head, code, centroid, block_at(ivf, place, at), at % KX_IVF_BLOCK);
		memcpy(tail, &start, sizeof(start));
		memcpy(tail + sizeof(start), code + ivf->lead / 8, ivf->code_bytes - ivf->lead / 8);
	}
}

void kx_ivf_place_copy(const struct kx_ivf *ivf, const struct kx_ivf_place *from, uint32_t at,
		       const struct kx_ivf_place *to, uint32_t to_at)
{
	const uint8_t *block = block_at(ivf, from, at);
	uint8_t *to_block = block_at(ivf, to, to_at);
	const uint16_t *factors = (const uint16_t *)(const void *)block + at % KX_IVF_BLOCK;
	uint16_t *to_factors = (uint16_t *)(void *)to_block + to_at % KX_IVF_BLOCK;
	uint8_t code[KX_IVF_PADDED_MAX / 8];

	to_factors[0] = factors[0];
	to_factors[KX_IVF_BLOCK] = factors[KX_IVF_BLOCK];
	ivf->kernels->unpack(block + KX_IVF_FACTOR_BYTES, ivf->lead / 8, at % KX_IVF_BLOCK, code);
	ivf->kernels->pack(to_block + KX_IVF_FACTOR_BYTES, ivf->lead / 8, to_at % KX_IVF_BLOCK, code);
	memcpy(to->tails + to_at * kx_ivf_tail_bytes(ivf), from->tails + at * kx_ivf_tail_bytes(ivf),
	       kx_ivf_tail_bytes(ivf));
	to->rows[to_at] = from->rows[at];
}

void kx_ivf_place_read(const struct kx_ivf *ivf, const struct kx_ivf_place *place, uint32_t at, uint8_t *ret_entry)
{
	const uint8_t *tail = place->tails + at * kx_ivf_tail_bytes(ivf);
	struct kx_ivf_entry_head head = {.row = place->rows[at]};
	struct kx_ivf_tail start;

	memcpy(&start, tail, sizeof(start));
	head.add = start.add;
	head.mul = start.mul;
	memcpy(ret_entry, &head, sizeof(head));
	ret_entry += sizeof(head);
	ivf->kernels->unpack(block_at(ivf, place, at) + KX_IVF_FACTOR_BYTES, ivf->lead / 8, at % KX_IVF_BLOCK, ret_entry);
	memcpy(ret_entry + ivf->lead / 8, tail + sizeof(start), ivf->code_bytes - ivf->lead / 8);
}
