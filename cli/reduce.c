#include "cli/reduce.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_MIN 4u /* bytes; smaller pieces take many tries and tell little */

struct reduction {
	uint8_t *bytes;
	size_t len;
	uint8_t *candidate;
	unsigned tries;
	kx_reduce_try *try_it;
	void *ctx;
};

static bool has_it(struct reduction *reduction, const uint8_t *bytes, size_t len)
{
	if (reduction->tries == 0)
		return false;
	reduction->tries--;
	enum kx_reduce_answer answer = reduction->try_it(reduction->ctx, bytes, len);
	if (answer == KX_REDUCE_STOP)
		reduction->tries = 0;
	return answer == KX_REDUCE_YES;
}

static void shorten(struct reduction *reduction)
{
	size_t without = 0;
	while (reduction->tries > 0 && reduction->len - without > 1) {
		size_t middle = without + (reduction->len - without) / 2;
		if (has_it(reduction, reduction->bytes, middle))
			reduction->len = middle;
		else
			without = middle;
	}
}

static bool leave_out(struct reduction *reduction, size_t at, size_t size)
{
	size_t rest = reduction->len - at - size;
	memcpy(reduction->candidate, reduction->bytes, at);
	memcpy(reduction->candidate + at, reduction->bytes + at + size, rest);
	if (!has_it(reduction, reduction->candidate, at + rest))
		return false;
	memmove(reduction->bytes + at, reduction->bytes + at + size, rest);
	reduction->len -= size;
	return true;
}

static bool blank(struct reduction *reduction, size_t at, size_t size)
{
	size_t set = 0;
	for (size_t i = at; i < at + size; i++)
		set += reduction->bytes[i] != 0;
	if (set == 0)
		return false;
	memcpy(reduction->candidate, reduction->bytes, reduction->len);
	memset(reduction->candidate + at, 0, size);
	if (!has_it(reduction, reduction->candidate, reduction->len))
		return false;
	memset(reduction->bytes + at, 0, size);
	return true;
}

/* From the end, so that what stands before a piece keeps its place. */
static void in_pieces(struct reduction *reduction, bool (*apply)(struct reduction *, size_t at, size_t size))
{
	for (size_t size = reduction->len / 2; size >= PIECE_MIN && reduction->tries > 0; size /= 2)
		for (size_t end = reduction->len; end >= size && reduction->tries > 0; end -= size)
			(void)apply(reduction, end - size, size);
}

kx_status kx_reduce(uint8_t *bytes, size_t *len, unsigned tries, kx_reduce_try *try_it, void *ctx)
{
	struct reduction reduction = {
		.bytes = bytes,
		.len = *len,
		.candidate = malloc(*len + 1),
		.tries = tries,
		.try_it = try_it,
		.ctx = ctx,
	};
	if (reduction.candidate == NULL)
		return KX_ENOMEM;
	shorten(&reduction);
	in_pieces(&reduction, leave_out);
	in_pieces(&reduction, blank);
	free(reduction.candidate);
	*len = reduction.len;
	return KX_OK;
}
