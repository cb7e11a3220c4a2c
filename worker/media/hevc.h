/* Which pictures an HEVC slice may refer to (Rec. ITU-T H.265, 7.3.2, 7.3.6 and 8.3): the reference picture set of its
 * header, and of that only as many as its lists hold. Layer: worker/media, pure.
 *
 * Only what nearly all streams in files are: one SPS and one PPS, in the container's record, without layers, long-term
 * references and scaling lists of their own. Others are not known, and nothing is said of them. */
#ifndef KX_MEDIA_HEVC_H
#define KX_MEDIA_HEVC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KX_HEVC_REFS_MAX 16u
#define KX_HEVC_SETS_MAX 64u

/* Differences of picture order count, the nearest first; `before` of them are negative and come first. */
struct kx_hevc_set {
	uint8_t before;
	uint8_t count;
	int32_t delta[KX_HEVC_REFS_MAX];
	bool used[KX_HEVC_REFS_MAX]; /* else only kept for pictures to come */
};

struct kx_hevc_params {
	bool known; /* the rest holds only then */
	unsigned pps_id;
	unsigned poc_bits;
	unsigned extra_bits, default_refs[2];
	bool separate_planes, temporal_mvp, sao, gray;
	bool output_flag, modifies_lists;
	unsigned set_count;
	struct kx_hevc_set sets[KX_HEVC_SETS_MAX];
};

struct kx_hevc_picture {
	bool known;
	bool idr;
	bool anchor;  /* the next picture's order count is told from this one's */
	unsigned lsb; /* of the order count */
	unsigned ref_count;
	int32_t refs[KX_HEVC_REFS_MAX]; /* order counts, relative to this picture's */
};

/* From the container's configuration record (hvcC). */
void kx_hevc_params_init(struct kx_hevc_params *params, const uint8_t *extradata, size_t len);

/* A packet of length-prefixed NAL units, which hold one picture. Of several slices all pictures count that any may use. */
struct kx_hevc_picture kx_hevc_picture_read(const struct kx_hevc_params *params, const uint8_t *bytes, size_t len,
					    unsigned length_size);

#endif
