/* What look-ups need of a moment: embedding and classes, without the features. Layer: shard/store.
 *
 * The features of a moment are nine tenths of its bytes and no query reads them; so a moment is stored twice: whole,
 * as it travelled, and as this. The digest ties one to the other.
 */
#ifndef KX_SHARD_STORE_SUMMARY_H
#define KX_SHARD_STORE_SUMMARY_H

#include "common/base/buf.h"
#include "common/record/moment.h"

#define KX_SUMMARY_DIGEST 16
#define KX_SUMMARY_MAX (64 + KX_SPACE_MAX + KX_CLASSES_MAX * 8 + KX_DIM_MAX) /* bytes of a packed one, at most */

/* A plain value: it owns nothing. */
struct kx_summary {
	enum kx_modality modality;
	uint32_t index;
	uint32_t count;        /* rows of the moment */
	uint32_t dim;
	uint32_t moment_bytes; /* of the whole moment's record */
	uint8_t digest[KX_SUMMARY_DIGEST]; /* first bytes of the SHA-256 of that record */
	char space[KX_SPACE_MAX];
	float scale;
	uint32_t class_count;
	uint32_t class_ids[KX_CLASSES_MAX];
	float class_scores[KX_CLASSES_MAX];
	int8_t embedding[KX_DIM_MAX];
};

/* moment: as unpacked. bytes: its packed form. KX_ENOMEM. */
kx_status kx_summary_of(const struct kx_moment *moment, const void *bytes, size_t len, struct kx_summary *ret)
	KX_MUST_CHECK;

/* Little-endian, versioned. Unpacking checks every length and range: KX_ECORRUPT, KX_EVERSION. */
kx_status kx_summary_pack(const struct kx_summary *summary, struct kx_buf *out) KX_MUST_CHECK;
kx_status kx_summary_unpack(const void *bytes, size_t len, struct kx_summary *ret, struct kx_error *error) KX_MUST_CHECK;

#endif
