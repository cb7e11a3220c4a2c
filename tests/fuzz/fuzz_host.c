/* What comes in on the control socket of a decoder host, of any kind and length; and what is made of an exit. */
#include <sys/socket.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"
#include "worker/pipeline/host_client.h"
#include "worker/pipeline/verdict.h"

#define MESSAGES_MAX 8u /* fewer than a socket takes before it is full */

static void check_verdict(const struct kx_host_exit *exit, struct fuzz_input in)
{
	struct kx_decode_request request = {0};
	struct kx_verdict verdict = {.reason = KX_REASON_NONE};

	request.cpu_limit_ms = fuzz_number(&in);
	request.wall_limit_ms = fuzz_number(&in);
	request.memory_limit_bytes = fuzz_number(&in) << 10;
	kx_verdict_of(exit, &request, fuzz_u8(&in) & 1, &verdict);
	FUZZ_CHECK(verdict.reason > KX_REASON_NONE && verdict.reason < KX_REASON_COUNT);
	FUZZ_CHECK(verdict.message[0] != '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct fuzz_input in = {bytes, len};
	struct kx_host host = {.fd = -1};
	struct kx_host_exit exit;
	unsigned sent = 0, exits = 0;
	kx_status status;
	int pair[2];

	FUZZ_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
	host.fd = pair[0];
	while (in.len > 0 && sent < MESSAGES_MAX) {
		size_t message_len;
		const uint8_t *message = fuzz_bytes(&in, 128, &message_len);

		FUZZ_CHECK(send(pair[1], message, message_len, MSG_NOSIGNAL) == (ssize_t)message_len);
		sent++;
	}
	close(pair[1]);
	while ((status = kx_host_recv(&host, &exit)) == KX_OK) {
		FUZZ_CHECK(exit.header.verb == KX_HOST_EXIT);
		exits++;
		check_verdict(&exit, (struct fuzz_input){bytes, len});
	}
	FUZZ_CHECK(status == KX_EIO); /* its end, or what is no message */
	FUZZ_CHECK(exits <= sent);
	close(host.fd);
	return 0;
}
