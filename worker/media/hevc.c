#include "worker/media/hevc.h"

#include <string.h>

#include "worker/media/bits.h"

#define RECORD_BYTES 23u /* of hvcC before its arrays */
#define UNIT_BYTES_MAX 512u
#define PROFILE_MAX 4u /* later ones have headers of their own */

enum { UNIT_RASL_R = 9, UNIT_SUB_LAYER_MAX = 15, UNIT_BLA = 16, UNIT_IDR = 19, UNIT_IDR_N_LP = 20, UNIT_IRAP_MAX = 23 };
enum { UNIT_SLICE_MAX = 31, UNIT_SPS = 33, UNIT_PPS = 34 };
enum { SLICE_B, SLICE_P, SLICE_I };

/* The first bytes of a NAL unit, without those that keep start codes out: what stands behind its own header. */
static struct kx_bits open_unit(const uint8_t *unit, size_t len, uint8_t bytes[UNIT_BYTES_MAX])
{
	struct kx_bits bits = {.bytes = bytes, .at = 16};
	unsigned zeros = 0;
	for (size_t i = 0; i < len && bits.len < UNIT_BYTES_MAX; i++) {
		if (zeros >= 2 && unit[i] == 3) {
			zeros = 0;
			continue;
		}
		zeros = unit[i] ? 0 : zeros + 1;
		bytes[bits.len++] = unit[i];
	}
	return bits;
}

/* Exp-Golomb; of signed ones only that they are passed over matters here. */
static unsigned golomb(struct kx_bits *bits)
{
	unsigned zeros = 0;
	while (!bits->over && zeros < 31 && !kx_bits_take(bits, 1))
		zeros++;
	if (zeros == 31)
		bits->over = true;
	return bits->over ? 0 : (1u << zeros) - 1 + kx_bits_take(bits, zeros);
}

static void skip_golombs(struct kx_bits *bits, unsigned count)
{
	for (; count > 0; count--)
		(void)golomb(bits);
}

static void add_to_set(struct kx_bits *bits, struct kx_hevc_set *set, int32_t delta, bool used)
{
	if (set->count == KX_HEVC_REFS_MAX) {
		bits->over = true;
		return;
	}
	set->delta[set->count] = delta;
	set->used[set->count++] = used;
}

/* How the entries of another set are taken over: one for each, and one for that set's own picture. */
struct takeover {
	int32_t shift;
	bool used[KX_HEVC_REFS_MAX + 1];
	bool taken[KX_HEVC_REFS_MAX + 1];
};

static void take_over(struct kx_bits *bits, struct kx_hevc_set *set, const struct kx_hevc_set *other,
		      const struct takeover *how, unsigned i, bool negative)
{
	int32_t delta = (i < other->count ? other->delta[i] : 0) + how->shift;
	if (how->taken[i] && (negative ? delta < 0 : delta > 0))
		add_to_set(bits, set, delta, how->used[i]);
}

/* Equations 7-61 and 7-62: the other set's far side from its end, its own picture, then its near side. */
static void derive_set(struct kx_bits *bits, struct kx_hevc_set *set, const struct kx_hevc_set *other,
		       const struct takeover *how)
{
	for (unsigned i = other->count; i-- > other->before;)
		take_over(bits, set, other, how, i, true);
	take_over(bits, set, other, how, other->count, true);
	for (unsigned i = 0; i < other->before; i++)
		take_over(bits, set, other, how, i, true);
	set->before = set->count;
	for (unsigned i = other->before; i-- > 0;)
		take_over(bits, set, other, how, i, false);
	take_over(bits, set, other, how, other->count, false);
	for (unsigned i = other->before; i < other->count; i++)
		take_over(bits, set, other, how, i, false);
}

static void read_derived_set(struct kx_bits *bits, const struct kx_hevc_params *params, unsigned index,
			     struct kx_hevc_set *set)
{
	struct takeover how = {0};
	unsigned back = index == params->set_count ? golomb(bits) + 1 : 1;
	bool negative = kx_bits_take(bits, 1);
	int32_t shift = (int32_t)(golomb(bits) & 0x7fff) + 1;
	how.shift = negative ? -shift : shift;
	if (back > index) {
		bits->over = true;
		return;
	}
	const struct kx_hevc_set *other = &params->sets[index - back];
	for (unsigned i = 0; i <= other->count; i++) {
		how.used[i] = kx_bits_take(bits, 1);
		how.taken[i] = how.used[i] || kx_bits_take(bits, 1);
	}
	derive_set(bits, set, other, &how);
}

static void read_plain_set(struct kx_bits *bits, struct kx_hevc_set *set)
{
	unsigned before = golomb(bits);
	unsigned after = golomb(bits);
	int32_t delta = 0;
	if (before > KX_HEVC_REFS_MAX || after > KX_HEVC_REFS_MAX)
		bits->over = true;
	for (unsigned i = 0; i < before + after && !bits->over; i++) {
		if (i == before)
			delta = 0;
		int32_t step = (int32_t)(golomb(bits) & 0x7fff) + 1;
		delta += i < before ? -step : step;
		add_to_set(bits, set, delta, kx_bits_take(bits, 1));
	}
	set->before = (uint8_t)before;
}

static void read_set(struct kx_bits *bits, const struct kx_hevc_params *params, unsigned index, struct kx_hevc_set *set)
{
	*set = (struct kx_hevc_set){0};
	if (index > 0 && kx_bits_take(bits, 1))
		read_derived_set(bits, params, index, set);
	else
		read_plain_set(bits, set);
	if (bits->over) /* others may be derived from it before anyone looks */
		*set = (struct kx_hevc_set){0};
}

/* False: a profile whose headers go on otherwise. */
static bool skip_profile(struct kx_bits *bits, unsigned sub_layers)
{
	bool profile[8];
	bool level[8];
	kx_bits_take(bits, 3);
	bool usual = kx_bits_take(bits, 5) <= PROFILE_MAX;
	kx_bits_take(bits, 80);
	kx_bits_take(bits, 8);
	for (unsigned i = 0; i < sub_layers; i++) {
		profile[i] = kx_bits_take(bits, 1);
		level[i] = kx_bits_take(bits, 1);
	}
	if (sub_layers > 0)
		kx_bits_take(bits, 2 * (8 - sub_layers));
	for (unsigned i = 0; i < sub_layers; i++)
		kx_bits_take(bits, (profile[i] ? 88 : 0) + (level[i] ? 8 : 0));
	return usual;
}

static void read_sps(struct kx_hevc_params *params, struct kx_bits *bits)
{
	kx_bits_take(bits, 4);
	unsigned sub_layers = kx_bits_take(bits, 3);
	kx_bits_take(bits, 1);
	bool usual = skip_profile(bits, sub_layers);
	skip_golombs(bits, 1);
	unsigned chroma = golomb(bits);
	params->separate_planes = chroma == 3 && kx_bits_take(bits, 1);
	params->gray = chroma == 0 || params->separate_planes;
	skip_golombs(bits, 2);
	if (kx_bits_take(bits, 1)) /* conformance window */
		skip_golombs(bits, 4);
	skip_golombs(bits, 2); /* bit depths */
	params->poc_bits = golomb(bits) + 4;
	skip_golombs(bits, 3 * (kx_bits_take(bits, 1) ? sub_layers + 1 : 1));
	skip_golombs(bits, 6); /* block sizes */
	bool scaling_lists = kx_bits_take(bits, 1);
	if (scaling_lists)
		scaling_lists = kx_bits_take(bits, 1);
	kx_bits_take(bits, 1);
	params->sao = kx_bits_take(bits, 1);
	if (kx_bits_take(bits, 1)) { /* PCM */
		kx_bits_take(bits, 8);
		skip_golombs(bits, 2);
		kx_bits_take(bits, 1);
	}
	params->set_count = golomb(bits);
	params->known = usual && !scaling_lists && params->poc_bits <= 16 && params->set_count <= KX_HEVC_SETS_MAX;
	/* The sets among each other are of so many as are there yet: none of these can be the last. */
	unsigned count = params->set_count;
	params->set_count = KX_HEVC_SETS_MAX + 1;
	for (unsigned i = 0; params->known && i < count; i++)
		read_set(bits, params, i, &params->sets[i]);
	params->set_count = count;
	bool long_term = kx_bits_take(bits, 1);
	params->temporal_mvp = kx_bits_take(bits, 1);
	params->known &= !long_term && !bits->over;
}

static void skip_tiles(struct kx_bits *bits)
{
	unsigned columns = golomb(bits);
	unsigned rows = golomb(bits);
	if (!kx_bits_take(bits, 1) && columns + rows < 64)
		skip_golombs(bits, columns + rows);
	kx_bits_take(bits, 1);
}

static void read_pps(struct kx_hevc_params *params, struct kx_bits *bits)
{
	params->pps_id = golomb(bits);
	skip_golombs(bits, 1);
	kx_bits_take(bits, 1); /* dependent slices */
	params->output_flag = kx_bits_take(bits, 1);
	params->extra_bits = kx_bits_take(bits, 3);
	kx_bits_take(bits, 2);
	params->default_refs[0] = golomb(bits) + 1;
	params->default_refs[1] = golomb(bits) + 1;
	skip_golombs(bits, 1);
	kx_bits_take(bits, 2);
	if (kx_bits_take(bits, 1)) /* quantizers of blocks */
		skip_golombs(bits, 1);
	skip_golombs(bits, 2);
	kx_bits_take(bits, 4);
	bool tiles = kx_bits_take(bits, 1);
	kx_bits_take(bits, 1);
	if (tiles)
		skip_tiles(bits);
	kx_bits_take(bits, 1);
	if (kx_bits_take(bits, 1)) { /* deblocking */
		kx_bits_take(bits, 1);
		if (!kx_bits_take(bits, 1))
			skip_golombs(bits, 2);
	}
	bool scaling_lists = kx_bits_take(bits, 1);
	params->modifies_lists = kx_bits_take(bits, 1);
	params->known &= !scaling_lists && !bits->over;
}

/* Units of one array of the record: their type, how many, and each with its length. */
static bool read_array(struct kx_hevc_params *params, const uint8_t *bytes, size_t len, size_t *at, unsigned seen[2])
{
	if (len - *at < 3)
		return false;
	unsigned type = bytes[*at] & 63u;
	unsigned count = (unsigned)bytes[*at + 1] << 8 | bytes[*at + 2];
	*at += 3;
	for (; count > 0; count--) {
		uint8_t payload[UNIT_BYTES_MAX];
		if (len - *at < 2)
			return false;
		size_t size = (size_t)bytes[*at] << 8 | bytes[*at + 1];
		*at += 2;
		if (size > len - *at)
			return false;
		struct kx_bits bits = open_unit(bytes + *at, size, payload);
		*at += size;
		if (type == UNIT_SPS)
			read_sps(params, &bits);
		if (type == UNIT_PPS)
			read_pps(params, &bits);
		if (type == UNIT_SPS || type == UNIT_PPS)
			seen[type - UNIT_SPS]++;
	}
	return true;
}

void kx_hevc_params_init(struct kx_hevc_params *params, const uint8_t *extradata, size_t len)
{
	unsigned seen[2] = {0};
	bool good = len > RECORD_BYTES;
	*params = (struct kx_hevc_params){0};
	unsigned arrays = good ? extradata[RECORD_BYTES - 1] : 0;
	for (size_t at = RECORD_BYTES; arrays > 0 && good; arrays--)
		good = read_array(params, extradata, len, &at, seen);
	/* SPS first: what it makes known the PPS can only take back. */
	params->known &= good && seen[0] == 1 && seen[1] == 1;
}

/* The first `count` of what the set has used, in the order of list 0 (from before) or 1 (from after). */
static void add_list(const struct kx_hevc_set *set, bool after_first, unsigned count, bool *wanted)
{
	unsigned from = after_first ? set->before : 0;
	for (unsigned i = 0; i < set->count && count > 0; i++) {
		unsigned entry = (from + i) % set->count;
		if (!set->used[entry])
			continue;
		wanted[entry] = true;
		count--;
	}
}

static void name_refs(const struct kx_hevc_set *set, const bool *wanted, struct kx_hevc_picture *picture)
{
	for (unsigned i = 0; i < set->count; i++)
		if (wanted[i])
			picture->refs[picture->ref_count++] = set->delta[i];
}

static unsigned bits_for(unsigned values)
{
	unsigned bits = 0;
	while ((1u << bits) < values)
		bits++;
	return bits;
}

static void read_order(const struct kx_hevc_params *params, struct kx_bits *bits, struct kx_hevc_set *set,
		       struct kx_hevc_picture *picture)
{
	picture->lsb = kx_bits_take(bits, params->poc_bits);
	if (!kx_bits_take(bits, 1)) {
		read_set(bits, params, params->set_count, set);
	} else {
		unsigned index = params->set_count > 1 ? kx_bits_take(bits, bits_for(params->set_count)) : 0;
		if (index < params->set_count)
			*set = params->sets[index];
		else
			bits->over = true;
	}
	if (params->temporal_mvp)
		kx_bits_take(bits, 1);
}

/* A picture's first slice. */
static void read_slice(const struct kx_hevc_params *params, struct kx_bits *bits, unsigned type, bool alone,
		       struct kx_hevc_picture *picture)
{
	struct kx_hevc_set set = {0};
	bool wanted[KX_HEVC_REFS_MAX] = {0};
	bool first = kx_bits_take(bits, 1);
	if (type >= UNIT_BLA && type <= UNIT_IRAP_MAX)
		kx_bits_take(bits, 1);
	picture->known = first && golomb(bits) == params->pps_id;
	kx_bits_take(bits, params->extra_bits);
	unsigned slice = golomb(bits);
	kx_bits_take(bits, (params->output_flag ? 1 : 0) + (params->separate_planes ? 2 : 0));
	picture->idr = type == UNIT_IDR || type == UNIT_IDR_N_LP;
	if (!picture->idr)
		read_order(params, bits, &set, picture);
	if (params->sao)
		kx_bits_take(bits, params->gray ? 1 : 2);
	unsigned counts[2] = {params->default_refs[0], params->default_refs[1]};
	if (slice < SLICE_I && kx_bits_take(bits, 1)) {
		counts[0] = golomb(bits) + 1;
		counts[1] = slice == SLICE_B ? golomb(bits) + 1 : 0;
	}
	bool all = !alone || params->modifies_lists;
	if (all || slice < SLICE_I)
		add_list(&set, false, all ? KX_HEVC_REFS_MAX : counts[0], wanted);
	if (!all && slice == SLICE_B)
		add_list(&set, true, counts[1], wanted);
	name_refs(&set, wanted, picture);
	picture->known &= slice <= SLICE_I && !bits->over;
}

struct kx_hevc_picture kx_hevc_picture_read(const struct kx_hevc_params *params, const uint8_t *bytes, size_t len,
					    unsigned length_size)
{
	struct kx_hevc_picture picture = {0};
	const uint8_t *slice = NULL;
	size_t slice_len = 0;
	unsigned slices = 0;
	for (size_t at = 0; params->known && length_size && len - at > length_size;) {
		size_t size = 0;
		for (unsigned i = 0; i < length_size; i++)
			size = size << 8 | bytes[at + i];
		at += length_size;
		if (size > len - at)
			return picture;
		unsigned type = size > 2 ? (bytes[at] >> 1) & 63u : UNIT_SLICE_MAX + 1;
		/* Layers, and parameter sets that may be others, are not looked into. */
		if (size > 2 && ((bytes[at] & 1u) || bytes[at + 1] >> 3 || type == UNIT_SPS || type == UNIT_PPS))
			return picture;
		if (type <= UNIT_SLICE_MAX && slices++ == 0) {
			slice = bytes + at;
			slice_len = size;
		}
		at += size;
	}
	if (!slice)
		return picture;
	uint8_t payload[UNIT_BYTES_MAX];
	unsigned type = (slice[0] >> 1) & 63u;
	struct kx_bits bits = open_unit(slice, slice_len, payload);
	read_slice(params, &bits, type, slices == 1, &picture);
	bool reference = type > UNIT_SUB_LAYER_MAX || (type & 1u);
	bool leading = type >= 6 && type <= UNIT_RASL_R;
	picture.anchor = (slice[1] & 7u) == 1 && reference && !leading;
	return picture;
}
