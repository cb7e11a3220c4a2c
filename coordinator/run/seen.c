#include "coordinator/run/seen.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/hash.h"

#define KEY 16

static const unsigned char empty[KEY];

static kx_status key_of(const char *id, unsigned char key[KEY])
{
	uint8_t sha[KX_SHA256_LEN];
	kx_status status = kx_sha256_bytes(id, strlen(id), sha);
	if (status == KX_OK)
		memcpy(key, sha, KEY);
	return status;
}

/* Where the key is, or the empty slot where it would go. */
static unsigned char *find(const struct kx_seen *seen, const unsigned char key[KEY])
{
	size_t at;
	memcpy(&at, key, sizeof(at));
	for (at &= seen->cap - 1;; at = (at + 1) & (seen->cap - 1))
		if (memcmp(seen->slots[at], key, KEY) == 0 || memcmp(seen->slots[at], empty, KEY) == 0)
			return seen->slots[at];
}

static kx_status grow(struct kx_seen *seen)
{
	struct kx_seen larger = {.cap = seen->cap != 0 ? 2 * seen->cap : 1024, .count = seen->count};
	larger.slots = calloc(larger.cap, KEY);
	if (larger.slots == NULL)
		return KX_ENOMEM;
	for (size_t i = 0; i < seen->cap; i++)
		if (memcmp(seen->slots[i], empty, KEY) != 0)
			memcpy(find(&larger, seen->slots[i]), seen->slots[i], KEY);
	free(seen->slots);
	*seen = larger;
	return KX_OK;
}

kx_status kx_seen_add(struct kx_seen *seen, const char *id, bool *ret_new)
{
	unsigned char key[KEY];
	kx_status status = key_of(id, key);
	if (status == KX_OK && 4 * (seen->count + 1) > 3 * seen->cap)
		status = grow(seen);
	if (status != KX_OK)
		return status;
	unsigned char *slot = find(seen, key);
	*ret_new = memcmp(slot, key, KEY) != 0;
	memcpy(slot, key, KEY);
	seen->count += *ret_new;
	return KX_OK;
}

bool kx_seen_has(const struct kx_seen *seen, const char *id)
{
	unsigned char key[KEY];
	return seen->cap != 0 && key_of(id, key) == KX_OK && memcmp(find(seen, key), key, KEY) == 0;
}

void kx_seen_done(struct kx_seen *seen)
{
	free(seen->slots);
	*seen = (struct kx_seen){0};
}
