#include "worker/media/io.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/fetch/stream.h"

void kx_io_note(struct kx_io *io, int errno_value)
{
	io->errno_value = errno_value;
	io->reason = KX_REASON_READ_FAILED;
	io->retriable = true;
	io->status = KX_EIO;
}

kx_status kx_io_fail(const struct kx_io *io, const char *name, struct kx_error *error)
{
	if (!io->message[0])
		return kx_error_from_errno(error, io->errno_value, "%s", name);
	return kx_error_set(error, KX_EIO, io->retriable ? KX_ERROR_RETRY : KX_ERROR_POISON, "%s", io->message);
}

/* ---- behind a socket ---- */

/* A confined process needs read and sendto for it. */
static bool put(int fd, const struct kx_stream_ask *ask)
{
	ssize_t sent;
	do {
		sent = send(fd, ask, sizeof(*ask), MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	return sent == (ssize_t)sizeof(*ask);
}

static ssize_t get(int fd, void *bytes, size_t len)
{
	ssize_t got;
	do {
		got = read(fd, bytes, len);
	} while (got < 0 && errno == EINTR);
	return got;
}

static void take_trouble(struct kx_io *io, const struct kx_stream_answer *answer, const uint8_t *text)
{
	size_t len = answer->len < sizeof(io->message) ? answer->len : sizeof(io->message) - 1;
	memcpy(io->message, text, len);
	io->message[len] = '\0';
	io->status = KX_EIO;
	io->reason = (enum kx_reason)answer->reason;
	io->retriable = answer->retriable != 0;
}

/* Bytes of the answer; -1 with the failure noted. */
static ssize_t ask_for(struct kx_io *io, enum kx_stream_verb verb, uint64_t offset, uint8_t *bytes, size_t len)
{
	struct {
		struct kx_stream_answer head;
		uint8_t bytes[KX_STREAM_CHUNK];
	} answer;
	const struct kx_stream_ask ask = {
		.verb = verb, .len = (uint32_t)(len < KX_STREAM_CHUNK ? len : KX_STREAM_CHUNK), .offset = offset};
	ssize_t got = put(io->fd, &ask) ? get(io->fd, &answer, sizeof(answer)) : -1;
	if (got < (ssize_t)sizeof(answer.head) || answer.head.len != (size_t)got - sizeof(answer.head)) {
		kx_io_note(io, EPIPE);
		return -1;
	}
	if (answer.head.status != KX_OK) {
		take_trouble(io, &answer.head, answer.bytes);
		return -1;
	}
	if (answer.head.len > ask.len || answer.head.size > INT64_MAX) {
		kx_io_note(io, EPROTO);
		return -1;
	}
	io->size = (int64_t)answer.head.size;
	if (answer.head.len > 0)
		memcpy(bytes, answer.bytes, answer.head.len);
	return (ssize_t)answer.head.len;
}

/* ---- both ---- */

/* As fstat() does, but through the system call of that name: glibc goes through one that also takes paths, which the
 * sandbox of a decoder child does not let pass. */
static int status_of(int fd, struct stat *ret)
{
	return (int)syscall(SYS_fstat, fd, ret);
}

kx_status kx_io_open(struct kx_io *io, int fd)
{
	struct stat st;
	*io = (struct kx_io){.fd = fd, .reason = KX_REASON_NONE};
	if (status_of(fd, &st) < 0) {
		kx_io_note(io, errno);
		return io->status;
	}
	io->remote = S_ISSOCK(st.st_mode);
	if (io->remote)
		return ask_for(io, KX_STREAM_SIZE, 0, NULL, 0) < 0 ? io->status : KX_OK;
	io->size = st.st_size;
	return S_ISREG(st.st_mode) ? KX_OK : KX_EUNSUPPORTED;
}

ssize_t kx_io_read(struct kx_io *io, uint64_t offset, uint8_t *bytes, size_t len)
{
	ssize_t got;
	if (io->status != KX_OK)
		return -1;
	if (io->remote)
		return offset < (uint64_t)io->size ? ask_for(io, KX_STREAM_READ, offset, bytes, len) : 0;
	do {
		got = pread(io->fd, bytes, len, (off_t)offset);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		kx_io_note(io, errno);
	return got;
}
