#include "common/base/testkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/str.h"

#define TMPDIR_MAX 60 /* bytes: a folder's name and a socket's come behind */

static void need(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "%s\n", what);
	abort();
}

uint64_t kx_test_seed(void)
{
	const char *given = getenv("KINODEX_TEST_SEED");
	uint64_t seed = 20261127;

	if (given && !strcmp(given, "new"))
		seed = kx_clock_mono_us();
	else if (given)
		need(kx_parse_u64(given, &seed) == KX_OK, "KINODEX_TEST_SEED is neither a number nor new");
	printf("KINODEX_TEST_SEED=%llu\n", (unsigned long long)seed);
	fflush(stdout);
	return seed;
}

const char *kx_test_tmp(void)
{
	const char *given = getenv("TMPDIR");

	return given && given[0] == '/' && strlen(given) <= TMPDIR_MAX ? given : "/tmp";
}

/* SplitMix64 (Steele, Lea and Flood 2014). */
uint64_t kx_test_random(uint64_t *random)
{
	uint64_t z = *random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

size_t kx_test_below(uint64_t *random, size_t n)
{
	return (size_t)(kx_test_random(random) % n);
}

void kx_test_mutate(uint64_t *random, struct kx_buf *bytes, const void *telling, size_t telling_len)
{
	size_t at = kx_test_below(random, bytes->len);
	size_t len = 1 + kx_test_below(random, bytes->len - at);
	uint8_t part[64];

	len = len < sizeof(part) ? len : sizeof(part);
	switch (kx_test_below(random, 5)) {
	case 0:
		bytes->data[at] ^= (uint8_t)(1u << kx_test_below(random, 8));
		return;
	case 1:
		bytes->data[at] = ((const uint8_t *)telling)[kx_test_below(random, telling_len)];
		return;
	case 2: /* cut off */
		bytes->len = at > 0 ? at : 1;
		return;
	case 3: /* cut out */
		if (len == bytes->len)
			return;
		memmove(bytes->data + at, bytes->data + at + len, bytes->len - at - len);
		bytes->len -= len;
		return;
	default: /* said twice, which merges messages and lengthens lists */
		memcpy(part, bytes->data + at, len);
		need(kx_buf_append(bytes, part, len) == KX_OK, "no room for a mutant");
	}
}
