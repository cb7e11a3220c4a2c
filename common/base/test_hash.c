#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/fault.h"
#include "common/base/hash.h"
#include "common/base/str.h"

/* FIPS 180-2, appendix B. */
#define SHA256_ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define SHA256_MILLION_A "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
#define SHA256_EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static void assert_hash(const uint8_t *hash, const char *expected)
{
	char text[2 * KX_SHA256_LEN + 1];

	kx_hex_encode(hash, KX_SHA256_LEN, text);
	assert_string_equal(text, expected);
}

static void known_answers(void **state)
{
	(void)state;
	uint8_t out[KX_SHA256_LEN];

	assert_int_equal(kx_sha256_bytes("abc", 3, out), KX_OK);
	assert_hash(out, SHA256_ABC);
	assert_int_equal(kx_sha256_bytes(NULL, 0, out), KX_OK);
	assert_hash(out, SHA256_EMPTY);
}

static void in_parts(void **state)
{
	(void)state;
	struct kx_sha256 *hash KX_CLEANUP(kx_sha256_cleanup) = NULL;
	uint8_t out[KX_SHA256_LEN];
	char part[1000];

	memset(part, 'a', sizeof(part));
	assert_int_equal(kx_sha256_new(&hash), KX_OK);
	for (int i = 0; i < 1000; i++)
		kx_sha256_update(hash, part, sizeof(part));
	kx_sha256_final(hash, out);
	assert_hash(out, SHA256_MILLION_A);
	kx_sha256_free(NULL);
}

static void of_a_file(void **state)
{
	(void)state;
	FILE *file KX_CLEANUP(kx_cleanup_fclose) = tmpfile();
	struct kx_error error = {0};
	uint8_t out[KX_SHA256_LEN];

	assert_non_null(file);
	for (int i = 0; i < 1000000; i++)
		fputc('a', file);
	assert_int_equal(fflush(file), 0);
	assert_int_equal(lseek(fileno(file), 5, SEEK_SET), 5);
	assert_int_equal(kx_sha256_fd(fileno(file), out, &error), KX_OK);
	assert_hash(out, SHA256_MILLION_A);
	assert_int_equal(lseek(fileno(file), 0, SEEK_CUR), 5);

	kx_fault_arm("fs.read", 2);
	assert_int_equal(kx_sha256_fd(fileno(file), out, &error), KX_EIO);
	assert_int_equal(kx_sha256_fd(-1, out, &error), KX_EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_answers),
		cmocka_unit_test(in_parts),
		cmocka_unit_test(of_a_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
