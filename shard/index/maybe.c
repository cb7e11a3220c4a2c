/* Which keys a space may have: a Bloom filter with four bits of one word a key. */
#include <stdlib.h>

#include "shard/index/internal.h"

#define BITS_A_KEY 16u
#define LEAST_KEYS 4096u

static uint64_t mix(uint32_t sum, uint64_t *ret_bits)
{
	uint64_t hash = sum * UINT64_C(0x9e3779b97f4a7c15);

	hash = (hash ^ hash >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
	hash ^= hash >> 32;
	*ret_bits = UINT64_C(1) << (hash & 63u) | UINT64_C(1) << (hash >> 6 & 63u) | UINT64_C(1) << (hash >> 12 & 63u) |
		    UINT64_C(1) << (hash >> 18 & 63u);
	return hash >> 24;
}

void kx_imaybe_restart(struct kx_imaybe *maybe, uint64_t keys)
{
	uint64_t room = LEAST_KEYS, words;

	while (room < 2 * keys)
		room *= 2;
	words = room * BITS_A_KEY / 64;
	free(maybe->words);
	/* Without memory every key may be there: the store is asked. */
	*maybe = (struct kx_imaybe){.words = calloc(words, sizeof(*maybe->words)), .mask = words - 1, .room = room};
}

void kx_imaybe_done(struct kx_imaybe *maybe)
{
	free(maybe->words);
	*maybe = (struct kx_imaybe){0};
}

void kx_imaybe_add(struct kx_imaybe *maybe, const void *key, size_t key_len)
{
	uint64_t bits, word;

	if (!maybe->words)
		return;
	word = mix(kx_crc32c(0, key, key_len), &bits) & maybe->mask;
	maybe->count += (maybe->words[word] & bits) != bits;
	maybe->words[word] |= bits;
}

bool kx_imaybe_has(const struct kx_imaybe *maybe, const void *key, size_t key_len)
{
	uint64_t bits, word;

	if (!maybe->words || !maybe->whole)
		return true;
	word = mix(kx_crc32c(0, key, key_len), &bits) & maybe->mask;
	return (maybe->words[word] & bits) == bits;
}
