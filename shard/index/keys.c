#include "shard/index/keys.h"

#include <string.h>

static void add_16(struct kx_ikey *key, uint32_t value)
{
	key->bytes[key->len++] = (uint8_t)(value >> 8);
	key->bytes[key->len++] = (uint8_t)value;
}

static void add_32(struct kx_ikey *key, uint32_t value)
{
	add_16(key, value >> 16);
	add_16(key, value & 0xffffu);
}

static uint32_t get_16(const uint8_t *in)
{
	return (uint32_t)in[0] << 8 | in[1];
}

static uint32_t get_32(const uint8_t *in)
{
	return get_16(in) << 16 | get_16(in + 2);
}

struct kx_ikey kx_ikey_format(void)
{
	return (struct kx_ikey){.len = 1, .bytes = {KX_META_FORMAT}};
}

struct kx_ikey kx_ikey_meta(enum kx_meta_kind kind, uint32_t space)
{
	struct kx_ikey key = {.len = 1, .bytes = {(uint8_t)kind}};

	add_16(&key, space);
	return key;
}

struct kx_ikey kx_ikey_space(uint32_t space)
{
	struct kx_ikey key = {0};

	add_16(&key, space);
	return key;
}

struct kx_ikey kx_ikey_row(uint32_t space, uint32_t row)
{
	struct kx_ikey key = kx_ikey_space(space);

	add_32(&key, row);
	return key;
}

struct kx_ikey kx_ikey_generation(uint32_t space, uint32_t generation)
{
	return kx_ikey_row(space, generation);
}

struct kx_ikey kx_ikey_cell(uint32_t space, uint32_t generation, uint32_t cell)
{
	struct kx_ikey key = kx_ikey_generation(space, generation);

	add_32(&key, cell);
	return key;
}

struct kx_ikey kx_ikey_delta(uint32_t space, uint32_t generation, uint32_t cell, uint32_t row)
{
	struct kx_ikey key = kx_ikey_cell(space, generation, cell);

	add_32(&key, row);
	return key;
}

bool kx_ikey_parse_row(const void *bytes, size_t len, uint32_t *ret_space, uint32_t *ret_row)
{
	const uint8_t *in = bytes;

	if (len != 6)
		return false;
	*ret_space = get_16(in);
	*ret_row = get_32(in + 2);
	return true;
}

bool kx_ikey_parse_cell(const void *bytes, size_t len, uint32_t *ret_space, uint32_t *ret_generation,
			uint32_t *ret_cell)
{
	const uint8_t *in = bytes;

	if (len != 10)
		return false;
	*ret_space = get_16(in);
	*ret_generation = get_32(in + 2);
	*ret_cell = get_32(in + 6);
	return true;
}

bool kx_ikey_parse_delta(const void *bytes, size_t len, uint32_t *ret_space, uint32_t *ret_generation,
			 uint32_t *ret_cell, uint32_t *ret_row)
{
	if (len != 14)
		return false;
	*ret_row = get_32((const uint8_t *)bytes + 10);
	return kx_ikey_parse_cell(bytes, 10, ret_space, ret_generation, ret_cell);
}

size_t kx_ikey_key(uint32_t space, const void *key, size_t key_len, uint8_t *out)
{
	struct kx_ikey head = kx_ikey_space(space);

	memcpy(out, head.bytes, head.len);
	memcpy(out + head.len, key, key_len);
	return head.len + key_len;
}
