#include "tests/fuzz/mutate.h"

#include <ctype.h>
#include <string.h>

#include "common/base/macros.h"
#include "common/base/testkit.h"
#include "tests/fuzz/fuzz.h"

#define HEADER_BYTES 4096u /* where containers keep what says most */
#define STEPS_MAX 4u

struct scene {
	uint64_t random;
	const struct base *bases;
	size_t count;
	struct kx_buf *out;
};

typedef void change_fn(struct scene *scene);

static size_t below(struct scene *scene, size_t n)
{
	return kx_test_below(&scene->random, n);
}

/* Small lengths are as likely as large ones. */
static size_t any_len(struct scene *scene, size_t max)
{
	size_t bound = (size_t)1 << below(scene, 20);

	bound = bound < max ? bound : max;
	return 1 + below(scene, bound);
}

static void insert(struct scene *scene, size_t at, const uint8_t *bytes, size_t len)
{
	struct kx_buf *out = scene->out;
	size_t tail = out->len - at;

	if (len > MUTANT_MAX - out->len)
		return;
	FUZZ_CHECK(kx_buf_append(out, bytes, len) == KX_OK); /* makes room; the place comes next */
	memmove(out->data + at + len, out->data + at, tail);
	memcpy(out->data + at, bytes, len);
}

static void cut_out(struct scene *scene, size_t at, size_t len)
{
	struct kx_buf *out = scene->out;

	if (len >= out->len)
		return;
	memmove(out->data + at, out->data + at + len, out->len - at - len);
	out->len -= len;
}

static void flip_bits(struct scene *scene)
{
	for (size_t n = any_len(scene, 256); n > 0; n--)
		scene->out->data[below(scene, scene->out->len)] ^= (uint8_t)(1u << below(scene, 8));
}

/* A number that headers count or measure with, in either order of bytes, 1 to 8 of them. */
static void write_number(struct scene *scene, size_t at)
{
	static const uint64_t telling[] = {0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0xffffff, 0x7fffffff,
		0x80000000, 0xfffffffe, 0xffffffff, 0x7fffffffffffffff, 0xffffffffffffffff};
	size_t len = (size_t)1 << below(scene, 4);
	uint64_t value = telling[below(scene, KX_ARRAY_LEN(telling))];
	bool little = below(scene, 2);

	if (below(scene, 4) == 0)
		value = below(scene, 2) ? kx_test_random(&scene->random) : scene->out->len + below(scene, 3) - 1;
	for (size_t i = 0; i < len && at + i < scene->out->len; i++)
		scene->out->data[at + i] = (uint8_t)(value >> 8 * (little ? i : len - 1 - i));
}

/* Near the start or, for containers that write it last, near the end. */
static size_t in_header(struct scene *scene)
{
	size_t len = scene->out->len;
	size_t at = below(scene, len < HEADER_BYTES ? len : HEADER_BYTES);

	if (below(scene, 2))
		at = below(scene, at + 1); /* the first bytes above all */
	return below(scene, 3) ? at : len - 1 - at;
}

static void edit_header(struct scene *scene)
{
	for (size_t n = 1 + below(scene, 6); n > 0; n--)
		write_number(scene, in_header(scene));
}

static bool is_name(const uint8_t *bytes)
{
	for (unsigned i = 0; i < 4; i++) {
		if (!isalnum(bytes[i]))
			return false;
	}
	return true;
}

/* Beside a four-letter name, which is where boxes and chunks say how long they are and what they hold. */
static void edit_box(struct scene *scene)
{
	const struct kx_buf *out = scene->out;
	size_t from = below(scene, 2) ? in_header(scene) : below(scene, out->len);

	for (size_t at = from; at + 4 <= out->len && at < from + (64u << 10); at++) {
		if (!is_name(out->data + at))
			continue;
		write_number(scene, below(scene, 3) || at < 4 ? at + 4 + below(scene, 24) : at - 4);
		return;
	}
	edit_header(scene);
}

static void remove_chunk(struct scene *scene)
{
	size_t at = below(scene, scene->out->len);

	cut_out(scene, at, any_len(scene, scene->out->len - at));
}

static void repeat_chunk(struct scene *scene)
{
	uint8_t chunk[8192];
	size_t at = below(scene, scene->out->len);
	size_t len = any_len(scene, scene->out->len - at);

	len = len < sizeof(chunk) ? len : sizeof(chunk);
	memcpy(chunk, scene->out->data + at, len);
	insert(scene, below(scene, 2) ? at : below(scene, scene->out->len), chunk, len);
}

static void swap_chunks(struct scene *scene)
{
	uint8_t chunk[8192];
	struct kx_buf *out = scene->out;
	size_t a = below(scene, out->len), b = below(scene, out->len);
	size_t first = a < b ? a : b, second = a < b ? b : a;
	size_t room = second - first < out->len - second ? second - first : out->len - second;
	size_t len;

	if (room == 0)
		return;
	len = any_len(scene, room);
	len = len < sizeof(chunk) ? len : sizeof(chunk);
	memcpy(chunk, out->data + first, len);
	memcpy(out->data + first, out->data + second, len);
	memcpy(out->data + second, chunk, len);
}

static void cut_off(struct scene *scene)
{
	scene->out->len = 1 + below(scene, scene->out->len);
}

static void blot_out(struct scene *scene)
{
	size_t at = below(scene, scene->out->len);
	size_t len = any_len(scene, scene->out->len - at);

	memset(scene->out->data + at, below(scene, 2) ? 0 : 0xff, len);
}

/* Goes on as another file, from anywhere in it. */
static void splice(struct scene *scene)
{
	const struct kx_buf *other = &scene->bases[below(scene, scene->count)].bytes;
	size_t from = below(scene, other->len);
	size_t len = other->len - from;

	scene->out->len = 1 + below(scene, scene->out->len);
	insert(scene, scene->out->len, other->data + from, len);
}

static change_fn *const changes[] = {
	flip_bits, flip_bits, edit_header, edit_header, edit_header, edit_box, edit_box, edit_box, remove_chunk,
	repeat_chunk, swap_chunks, cut_off, blot_out, splice,
};

void mutant_make(const struct base *bases, size_t count, uint64_t seed, uint64_t number, struct kx_buf *out,
		 size_t *ret_base)
{
	struct scene scene = {.random = seed, .bases = bases, .count = count, .out = out};
	const struct base *base = &bases[number % count];

	scene.random = kx_test_random(&scene.random) ^ number * UINT64_C(0x9e3779b97f4a7c15);
	kx_buf_clear(out);
	FUZZ_CHECK(kx_buf_append(out, base->bytes.data, base->bytes.len) == KX_OK);
	for (size_t n = 1 + below(&scene, STEPS_MAX); n > 0; n--)
		changes[below(&scene, KX_ARRAY_LEN(changes))](&scene);
	*ret_base = number % count;
}
