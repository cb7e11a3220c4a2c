/* The child's end of a stream: answers of any kind and length, from whoever is behind the socket. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fetch/stream.h"
#include "tests/fuzz/fuzz.h"
#include "worker/media/io.h"

#define ANSWERS_MAX 8u /* fewer than a socket takes before it is full */

/* As a fetcher says it, or nearly. */
static bool answer(int fd, struct fuzz_input *in)
{
	struct {
		struct kx_stream_answer head;
		uint8_t bytes[256];
	} message = {0};
	size_t len;
	const uint8_t *bytes = fuzz_bytes(in, sizeof(message.bytes), &len);

	message.head.reason = KX_REASON_NONE + 1u + fuzz_u8(in) % (KX_REASON_COUNT - 1u - KX_REASON_NONE); /* our own process is on the other side */
	message.head.retriable = fuzz_u8(in) & 1;
	if (len > 0)
		memcpy(message.bytes, bytes, len);
	message.head.status = fuzz_u8(in) % 8u ? 0 : (int32_t)fuzz_u64(in);
	message.head.len = fuzz_u8(in) % 8u ? (uint32_t)len : (uint32_t)fuzz_u64(in);
	message.head.size = fuzz_number(in);
	len += sizeof(message.head);
	if (fuzz_u8(in) % 16u == 0)
		len = fuzz_u8(in);
	return send(fd, &message, len < sizeof(message) ? len : sizeof(message), MSG_NOSIGNAL) >= 0;
}

static void read_on(struct kx_io *io, struct fuzz_input in)
{
	for (unsigned i = 0; i < ANSWERS_MAX; i++) {
		size_t room = 1 + fuzz_u8(&in);
		uint8_t *bytes = malloc(room);
		ssize_t got;

		FUZZ_CHECK(bytes);
		got = kx_io_read(io, fuzz_number(&in), bytes, room);
		FUZZ_CHECK(got <= (ssize_t)room && (got >= 0) == (io->status == KX_OK));
		FUZZ_CHECK(io->size >= 0);
		free(bytes);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct fuzz_input in = {bytes, len};
	struct kx_error error = {0};
	struct kx_io io;
	int pair[2];
	unsigned count = 1 + fuzz_u8(&in) % ANSWERS_MAX;

	FUZZ_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
	for (unsigned i = 0; i < count; i++)
		FUZZ_CHECK(answer(pair[1], &in));
	shutdown(pair[1], SHUT_WR);
	if (kx_io_open(&io, pair[0]) == KX_OK)
		read_on(&io, (struct fuzz_input){bytes, len});
	if (io.status != KX_OK) {
		FUZZ_CHECK(io.status == KX_EIO && kx_io_fail(&io, "clip", &error) == KX_EIO);
		FUZZ_CHECK(io.reason > KX_REASON_NONE && io.reason < KX_REASON_COUNT);
		FUZZ_CHECK(memchr(io.message, '\0', sizeof(io.message)) && error.message[0] != '\0');
	}
	close(pair[0]);
	close(pair[1]);
	return 0;
}
