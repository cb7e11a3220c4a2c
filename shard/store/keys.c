#include "shard/store/keys.h"

#include <assert.h>
#include <string.h>

#define TAIL_LEN (1 + 8 + 1 + 4) /* of a moment's key, from the NUL on */
#define EVENT_TAIL_LEN (1 + 8 + 1)

void kx_be64_put(uint8_t out[8], uint64_t value)
{
	for (int i = 0; i < 8; i++)
		out[i] = (uint8_t)(value >> (56 - 8 * i));
}

uint64_t kx_be64_get(const uint8_t in[8])
{
	uint64_t value = 0;

	for (int i = 0; i < 8; i++)
		value = value << 8 | in[i];
	return value;
}

void kx_key_id(struct kx_key *key, const char *id)
{
	key->len = strlen(id);
	assert(key->len <= KX_ID_MAX);
	memcpy(key->bytes, id, key->len);
}

void kx_key_generation(struct kx_key *key, const char *id, uint64_t generation)
{
	kx_key_id(key, id);
	key->bytes[key->len++] = 0;
	kx_be64_put(key->bytes + key->len, generation);
	key->len += 8;
}

void kx_key_after_generation(struct kx_key *key, const char *id, uint64_t generation)
{
	if (generation < UINT64_MAX) {
		kx_key_generation(key, id, generation + 1);
		return;
	}
	kx_key_id(key, id);
	key->bytes[key->len++] = 1;
}

void kx_key_moment(struct kx_key *key, const char *id, uint64_t generation, enum kx_modality modality, uint32_t index)
{
	kx_key_generation(key, id, generation);
	key->bytes[key->len++] = (uint8_t)modality;
	for (int i = 0; i < 4; i++)
		key->bytes[key->len++] = (uint8_t)(index >> (24 - 8 * i));
}

void kx_key_event(struct kx_key *key, const char *id, uint64_t generation, unsigned kind)
{
	kx_key_generation(key, id, generation);
	key->bytes[key->len++] = (uint8_t)kind;
}

bool kx_event_key_parse(const void *bytes, size_t len, struct kx_event_key *ret)
{
	const uint8_t *tail = bytes;

	if (len <= EVENT_TAIL_LEN || len > KX_KEY_MAX)
		return false;
	tail += len - EVENT_TAIL_LEN;
	if (memchr(bytes, 0, len) != tail)
		return false;
	ret->id = bytes;
	ret->generation = kx_be64_get(tail + 1);
	ret->kind = tail[9];
	return true;
}

bool kx_moment_key_parse(const void *bytes, size_t len, struct kx_moment_key *ret)
{
	const uint8_t *tail = bytes;

	if (len <= TAIL_LEN || len > KX_KEY_MAX)
		return false;
	tail += len - TAIL_LEN;
	if (memchr(bytes, 0, len) != tail)
		return false;
	if (tail[9] != KX_VISUAL && tail[9] != KX_AUDIO)
		return false;
	ret->id = bytes;
	ret->generation = kx_be64_get(tail + 1);
	ret->modality = (enum kx_modality)tail[9];
	ret->index = (uint32_t)tail[10] << 24 | (uint32_t)tail[11] << 16 | (uint32_t)tail[12] << 8 | tail[13];
	return true;
}
