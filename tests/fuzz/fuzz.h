/* For fuzz targets: taking numbers from the input, promises that end the program, the input as a file.
 *
 * A target is one file with LLVMFuzzerTestOneInput(). libFuzzer runs it in the fuzz preset; everywhere else replay.c
 * runs it over its corpus, as a test. It keeps nothing from one input to the next that changes what the next one does. */
#ifndef KX_FUZZ_FUZZ_H
#define KX_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

/* A promise of the code under test. Unlike assert() it is there in every build. */
#define FUZZ_CHECK(holds) ((holds) ? (void)0 : fuzz_broken(#holds, __FILE__, __LINE__))
_Noreturn void fuzz_broken(const char *promise, const char *file, int line);

/* Takes from the front; what is not there any more is 0. */
struct fuzz_input {
	const uint8_t *bytes;
	size_t len;
};
uint8_t fuzz_u8(struct fuzz_input *in);
uint64_t fuzz_u64(struct fuzz_input *in); /* 8 bytes, little-endian */
/* A number as people and decoders write them: mostly small, sometimes at an edge. One byte, or nine. */
uint64_t fuzz_number(struct fuzz_input *in);
/* The next bytes, at most `max` of them; how many is taken first. Points into the input. */
const uint8_t *fuzz_bytes(struct fuzz_input *in, size_t max, size_t *ret_len);

/* A descriptor of a file (in memory) that holds exactly these bytes; valid until the next call. */
int fuzz_file(const uint8_t *bytes, size_t len);

#endif
