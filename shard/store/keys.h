/* How keys are laid out, so that the order of bytes is the order of things. Layer: shard/store.
 *
 *   pending, videos     id
 *   moments, features   id NUL generation(be64) modality(1) index(be32)
 *   outbox              id NUL generation(be64) kind(1)
 *
 * Ids hold no NUL, so no id's keys stand among another's.
 */
#ifndef KX_SHARD_STORE_KEYS_H
#define KX_SHARD_STORE_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/record/types.h"

#define KX_KEY_MAX (KX_ID_MAX + 1 + 8 + 1 + 4)

struct kx_key {
	size_t len;
	uint8_t bytes[KX_KEY_MAX];
};

/* The id is of at most KX_ID_MAX bytes: asserted, unpacking has checked it. */
void kx_key_id(struct kx_key *key, const char *id);
void kx_key_generation(struct kx_key *key, const char *id, uint64_t generation);
/* The first key after all of this generation and of older ones. */
void kx_key_after_generation(struct kx_key *key, const char *id, uint64_t generation);
void kx_key_moment(struct kx_key *key, const char *id, uint64_t generation, enum kx_modality modality, uint32_t index);

/* kind: a small number that tells the events of one generation apart. */
void kx_key_event(struct kx_key *key, const char *id, uint64_t generation, unsigned kind);

/* What the key of an event says; false when it is no such key. id points into bytes and ends with its NUL. */
struct kx_event_key {
	const char *id;
	uint64_t generation;
	unsigned kind;
};
bool kx_event_key_parse(const void *bytes, size_t len, struct kx_event_key *ret);

/* What the key of a moment says; false when it is no such key. id points into bytes. */
struct kx_moment_key {
	const char *id;
	uint64_t generation;
	enum kx_modality modality;
	uint32_t index;
};
bool kx_moment_key_parse(const void *bytes, size_t len, struct kx_moment_key *ret);

void kx_be64_put(uint8_t out[8], uint64_t value);
uint64_t kx_be64_get(const uint8_t in[8]);

#endif
