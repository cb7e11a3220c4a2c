/* Rules that hold for every record of this folder. Layer: record.
 *
 * A record is a plain struct. kx_X_pack() appends its wire form to a buffer. kx_X_unpack() checks size, version,
 * presence and ranges, and gives a struct that owns all it points to; free it with kx_X_free(), which takes NULL.
 * A failed unpack is KX_ECORRUPT, KX_EVERSION or KX_ETOOBIG, class POISON, and names the field; or KX_ENOMEM, which
 * says nothing about the record. It takes at most a small multiple of the message's length. A failed pack leaves the
 * buffer as it was: KX_ETOOBIG (over KX_RECORD_MAX or the buffer's max), KX_ENOMEM, KX_EINVAL (a kind out of range).
 * Pack does not look at ranges: a value that the reader will refuse is the writer's mistake.
 * A struct that is to be packed may point to memory of the caller's: pack only reads. Strings are never NULL after
 * unpack (absent is ""); pack takes NULL for "", though not among labels. A hash of all zeros is absent. In a record
 * of several kinds, what belongs to another kind is zeroed (NULL). Nothing here is shared between threads.
 */
#ifndef KX_RECORD_RECORD_H
#define KX_RECORD_RECORD_H

#include "common/base/buf.h"
#include "common/base/error.h"
#include "common/record/types.h"

#define KX_RECORD_FUNCTIONS(name)                                                                        \
	kx_status name##_pack(const struct name *record, struct kx_buf *out) KX_MUST_CHECK;              \
	kx_status name##_unpack(const void *bytes, size_t len, struct name **ret, struct kx_error *error) \
		KX_MUST_CHECK;                                                                           \
	void name##_free(struct name *record);                                                           \
	void name##_cleanup(struct name **record)

#endif
