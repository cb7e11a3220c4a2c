#include "coordinator/source/idset.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/hash.h"

#define FIRST_CAP ((size_t)1 << 10)
#define DIGEST_WORDS 4

struct kx_idset_slot {
	uint32_t digest[DIGEST_WORDS];
	uint32_t line; /* 0: the slot is free */
};

void kx_idset_done(struct kx_idset *set)
{
	free(set->slots);
	*set = (struct kx_idset){0};
}

static kx_status digest_of(const char *id, uint32_t digest[DIGEST_WORDS])
{
	uint8_t sha[KX_SHA256_LEN];

	if (kx_sha256_bytes(id, strlen(id), sha))
		return KX_ENOMEM;
	memcpy(digest, sha, DIGEST_WORDS * sizeof(digest[0]));
	return KX_OK;
}

/* Where the digest stands, or the free slot where it belongs. The digest is as good as random: its first word is the
 * hash. There is always a free slot. */
static struct kx_idset_slot *find(struct kx_idset_slot *slots, size_t cap, const uint32_t digest[DIGEST_WORDS])
{
	size_t at = digest[0] & (cap - 1);

	while (slots[at].line && memcmp(slots[at].digest, digest, sizeof(slots[at].digest)) != 0)
		at = (at + 1) & (cap - 1);
	return &slots[at];
}

static kx_status grow(struct kx_idset *set)
{
	size_t cap = set->cap ? 2 * set->cap : FIRST_CAP;
	struct kx_idset_slot *slots = calloc(cap, sizeof(*slots));

	if (!slots)
		return KX_ENOMEM;
	for (size_t i = 0; i < set->cap; i++) {
		if (set->slots[i].line)
			*find(slots, cap, set->slots[i].digest) = set->slots[i];
	}
	free(set->slots);
	set->slots = slots;
	set->cap = cap;
	return KX_OK;
}

kx_status kx_idset_add(struct kx_idset *set, const char *id, uint64_t line, uint64_t *ret_first_line)
{
	struct kx_idset_slot new = {.line = line < UINT32_MAX ? (uint32_t)line : UINT32_MAX};
	struct kx_idset_slot *slot;

	if (set->count == KX_IDSET_MAX)
		return KX_ETOOBIG;
	if (4 * set->count >= 3 * set->cap && grow(set))
		return KX_ENOMEM;
	if (digest_of(id, new.digest))
		return KX_ENOMEM;
	slot = find(set->slots, set->cap, new.digest);
	if (slot->line) {
		*ret_first_line = slot->line;
		return KX_EEXIST;
	}
	*slot = new;
	set->count++;
	return KX_OK;
}

kx_status kx_idset_find(const struct kx_idset *set, const char *id, uint64_t *ret_line)
{
	uint32_t digest[DIGEST_WORDS];
	const struct kx_idset_slot *slot;

	if (!set->cap)
		return KX_ENOTFOUND;
	if (digest_of(id, digest))
		return KX_ENOMEM;
	slot = find(set->slots, set->cap, digest);
	if (!slot->line)
		return KX_ENOTFOUND;
	*ret_line = slot->line;
	return KX_OK;
}
