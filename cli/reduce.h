/* The smallest part of some bytes that still has a property, as far as a bounded number of tries finds it. Layer: cli.
 *
 * First the shortest beginning, by bisection; then pieces are left out, halving their size, as delta debugging does
 * (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002, its complements only); then what
 * could not be left out is set to zero, which shows which bytes matter.
 */
#ifndef KX_CLI_REDUCE_H
#define KX_CLI_REDUCE_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

enum kx_reduce_answer {
	KX_REDUCE_NO,
	KX_REDUCE_YES,  /* it has the property */
	KX_REDUCE_STOP, /* no more tries: time is up, or nothing can be tried */
};

typedef enum kx_reduce_answer kx_reduce_try(void *ctx, const uint8_t *bytes, size_t len);

/* bytes[*len] has the property. Reduces it in place, by at most `tries` calls. KX_ENOMEM leaves it as it was. */
kx_status kx_reduce(uint8_t *bytes, size_t *len, unsigned tries, kx_reduce_try *try_it, void *ctx) KX_MUST_CHECK;

#endif
