/* Reads the fields of a header, the most significant bit first. Layer: worker/media, private. */
#ifndef KX_WORKER_MEDIA_BITS_H
#define KX_WORKER_MEDIA_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Past the end come zeros, and `over`. */
struct kx_bits {
	const uint8_t *bytes; /* borrowed */
	size_t len;           /* bytes */
	size_t at;            /* bits */
	bool over;
};

/* The next `count` bits; of more than 32 the last 32. */
static inline unsigned kx_bits_take(struct kx_bits *bits, unsigned count)
{
	unsigned value = 0;
	for (; count > 0; count--, bits->at++) {
		unsigned bit = 0;
		if (bits->at / 8 < bits->len)
			bit = (bits->bytes[bits->at / 8] >> (7 - bits->at % 8)) & 1u;
		else
			bits->over = true;
		value = value << 1 | bit;
	}
	return value;
}

#endif
