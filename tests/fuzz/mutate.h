/* Damaged copies of media files: a mutant follows from the base files, a seed and a number, and from nothing else.
 * For mutants.c. */
#ifndef KX_FUZZ_MUTATE_H
#define KX_FUZZ_MUTATE_H

#include "common/base/buf.h"

#define MUTANT_MAX ((size_t)16 << 20)

struct base {
	char *name;
	struct kx_buf bytes;
};

/* The number's mutant; mutants take turns over the bases. ret_base: of which one it is. out: cleared first; its max is
 * at least MUTANT_MAX. Never empty. */
void mutant_make(const struct base *bases, size_t count, uint64_t seed, uint64_t number, struct kx_buf *out,
		 size_t *ret_base);

#endif
