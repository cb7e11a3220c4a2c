/* What the reader of a stream and its fetcher say to each other, over a SOCK_SEQPACKET pair. Layer: fetch.
 *
 *   reader  -> {SIZE}                     one question at a time
 *   reader  -> {READ, len, offset}
 *   fetcher -> {status, len, size} + len bytes: the data, at least one byte before the end of the object, none at it;
 *              where status is not KX_OK the message, and the socket's end follows
 *
 * Both ends are this executable on this machine, so plain structs travel.
 */
#ifndef KX_FETCH_STREAM_H
#define KX_FETCH_STREAM_H

#include <stdint.h>

#define KX_STREAM_CHUNK (64u << 10) /* bytes of data in one answer */

enum kx_stream_verb { KX_STREAM_SIZE = 1, KX_STREAM_READ };

struct kx_stream_ask {
	uint32_t verb;
	uint32_t len; /* at most KX_STREAM_CHUNK count */
	uint64_t offset;
};

struct kx_stream_answer {
	int32_t status;     /* enum kx_status */
	uint32_t reason;    /* enum kx_reason; KX_REASON_NONE when all is well */
	uint32_t retriable;
	uint32_t len;       /* of what follows */
	uint64_t size;      /* of the object */
};

#endif
