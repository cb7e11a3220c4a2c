#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

void fuzz_broken(const char *promise, const char *file, int line)
{
	fprintf(stderr, "%s:%d: broken: %s\n", file, line, promise);
	abort();
}

uint8_t fuzz_u8(struct fuzz_input *in)
{
	if (in->len == 0)
		return 0;
	in->len--;
	return *in->bytes++;
}

uint64_t fuzz_u64(struct fuzz_input *in)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < 8; i++)
		value |= (uint64_t)fuzz_u8(in) << 8 * i;
	return value;
}

uint64_t fuzz_number(struct fuzz_input *in)
{
	uint8_t small = fuzz_u8(in);

	return small < 0xff ? small : fuzz_u64(in);
}

const uint8_t *fuzz_bytes(struct fuzz_input *in, size_t max, size_t *ret_len)
{
	const uint8_t *bytes;
	size_t len = fuzz_u8(in);

	len = len < max ? len : max;
	len = len < in->len ? len : in->len;
	bytes = in->bytes;
	in->bytes += len;
	in->len -= len;
	*ret_len = len;
	return bytes;
}

int fuzz_file(const uint8_t *bytes, size_t len)
{
	static int fd = -1;

	if (fd < 0)
		fd = memfd_create("fuzz", MFD_CLOEXEC);
	FUZZ_CHECK(fd >= 0);
	FUZZ_CHECK(ftruncate(fd, 0) == 0);
	for (size_t at = 0; at < len;) {
		ssize_t put = pwrite(fd, bytes + at, len - at, (off_t)at);

		FUZZ_CHECK(put > 0);
		at += (size_t)put;
	}
	return fd;
}
