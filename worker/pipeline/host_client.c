#include "worker/pipeline/host_client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/macros.h"
#include "common/base/str.h"

/* The host must have one thread, and OpenBLAS makes its threads when it is loaded: tell it not to. And where a call
 * into a library goes, which is looked up at the first one, is looked up once, and not by every child again. */
static char *const own_variables[] = {(char *)"OPENBLAS_NUM_THREADS=1", (char *)"LD_BIND_NOW=1"};

/* Children decode what strangers made, and need none of what the fetcher logs in with. */
static bool is_for_the_host(const char *variable)
{
	const char *equals = strchr(variable, '=');
	size_t len = equals ? (size_t)(equals - variable) : strlen(variable);

	if (kx_str_starts(variable, "AWS_"))
		return false;
	for (size_t i = 0; i < KX_ARRAY_LEN(own_variables); i++) {
		if (equals && strncmp(variable, own_variables[i], len + 1) == 0)
			return false;
	}
	return len < strlen("_proxy") || strncasecmp(variable + len - strlen("_proxy"), "_proxy", strlen("_proxy")) != 0;
}

static char **host_environment(void)
{
	size_t count = 0, kept = 0;
	char **env;

	while (environ[count])
		count++;
	env = calloc(count + KX_ARRAY_LEN(own_variables) + 1, sizeof(*env));
	if (!env)
		return NULL;
	for (size_t i = 0; i < count; i++) {
		if (is_for_the_host(environ[i]))
			env[kept++] = environ[i];
	}
	for (size_t i = 0; i < KX_ARRAY_LEN(own_variables); i++)
		env[kept++] = own_variables[i];
	return env;
}

static int spawn_actions(posix_spawn_file_actions_t *actions, int control)
{
	int error = posix_spawn_file_actions_addopen(actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);

	if (error == 0)
		error = posix_spawn_file_actions_adddup2(actions, control, KX_HOST_CONTROL_FD);
	if (error == 0)
		error = posix_spawn_file_actions_addclosefrom_np(actions, KX_HOST_CONTROL_FD + 1);
	return error;
}

static int spawn_attributes(posix_spawnattr_t *attributes)
{
	sigset_t none, all;
	int error;

	sigemptyset(&none);
	sigfillset(&all);
	error = posix_spawnattr_setsigmask(attributes, &none);
	if (error == 0)
		error = posix_spawnattr_setsigdefault(attributes, &all);
	if (error == 0)
		error = posix_spawnattr_setpgroup(attributes, 0);
	if (error == 0)
		error = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
								     POSIX_SPAWN_SETPGROUP);
	return error;
}

/* Returns an errno. */
static int spawn_host(const char *program, int control, pid_t *ret_pid)
{
	char *argv[] = {(char *)program, (char *)"decoder-host", NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	char **env = host_environment();
	int error = ENOMEM;

	if (!env)
		return error;
	error = posix_spawn_file_actions_init(&actions);
	if (error != 0)
		goto out_env;
	error = posix_spawnattr_init(&attributes);
	if (error != 0)
		goto out_actions;
	error = spawn_actions(&actions, control);
	if (error == 0)
		error = spawn_attributes(&attributes);
	if (error == 0)
		error = posix_spawn(ret_pid, program, &actions, &attributes, argv, env);
	posix_spawnattr_destroy(&attributes);
out_actions:
	posix_spawn_file_actions_destroy(&actions);
out_env:
	free(env);
	return error;
}

kx_status kx_host_start(struct kx_host *host, const char *program, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_close) int far = -1;
	int pair[2];
	int failed;

	*host = (struct kx_host){.fd = -1};
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
		return kx_error_from_errno(error, errno, "control socket of the decoder host");
	far = pair[1];
	failed = kx_fault("pipeline.host.start") ? ENOENT : spawn_host(program, far, &host->pid);
	if (failed != 0) {
		close(pair[0]);
		return kx_error_from_errno(error, failed, "start the decoder host (%s)", program);
	}
	host->fd = pair[0];
	return KX_OK;
}

static kx_status say_why(const struct kx_host *host, struct kx_error *error)
{
	if (host->unsafe)
		return kx_error_set(error, KX_EUNSUPPORTED, KX_ERROR_FATAL,
				    "this kernel or container has no seccomp filters, so a decoder can't be kept from what "
				    "a hostile file may make it do. --sandbox off decodes without them: only for files "
				    "that you trust");
	return kx_error_set(error, KX_EIO, KX_ERROR_RETRY, "the decoder host ended as soon as it was started");
}

kx_status kx_host_wait_ready(struct kx_host *host, int timeout_ms, struct kx_error *error)
{
	uint64_t end_us = kx_clock_mono_us() + (uint64_t)timeout_ms * 1000u;
	struct kx_host_exit none;

	while (!host->ready) {
		struct pollfd poll_fd = {.fd = host->fd, .events = POLLIN};
		uint64_t now_us = kx_clock_mono_us();
		int got = now_us < end_us ? poll(&poll_fd, 1, (int)((end_us - now_us) / 1000u) + 1) : 0;

		if (got == 0)
			return kx_error_set(error, KX_ETIMEDOUT, KX_ERROR_RETRY,
					    "the decoder host was not ready after %d ms", timeout_ms);
		if (got < 0 && errno != EINTR)
			return kx_error_from_errno(error, errno, "wait for the decoder host");
		if (got > 0 && kx_host_recv(host, &none) == KX_EIO)
			return say_why(host, error);
	}
	return KX_OK;
}

static void attach_fds(struct msghdr *header, void *control, size_t control_len, const int *fds, size_t count)
{
	struct cmsghdr *c;

	memset(control, 0, control_len);
	header->msg_control = control;
	header->msg_controllen = CMSG_SPACE(count * sizeof(int));
	c = CMSG_FIRSTHDR(header);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(c), fds, count * sizeof(int));
}

static kx_status send_with_fds(struct kx_host *host, const struct kx_buf *message, const int *fds, size_t count)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(KX_HOST_FDS_MAX * sizeof(int))];
	struct iovec io = {.iov_base = message->data, .iov_len = message->len};
	struct msghdr header = {.msg_iov = &io, .msg_iovlen = 1};
	ssize_t sent;

	attach_fds(&header, control, sizeof(control), fds, count);
	do {
		sent = sendmsg(host->fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (sent < 0 && errno == EINTR);
	return sent == (ssize_t)message->len ? KX_OK : KX_EIO;
}

kx_status kx_host_join(struct kx_host *host, struct kx_host *other, struct kx_error *error)
{
	const struct kx_host_header header = {.verb = KX_HOST_JOIN};
	struct kx_buf message = {.max = sizeof(header)};
	KX_CLEANUP(kx_cleanup_close) int far = -1;
	KX_CLEANUP(kx_cleanup_close) int near = -1;
	kx_status status = kx_buf_append(&message, &header, sizeof(header));
	int pair[2];

	*host = (struct kx_host){.fd = -1};
	if (status != KX_OK)
		return kx_error_nomem(error);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0) {
		near = pair[0];
		far = pair[1];
		status = other->fd >= 0 ? send_with_fds(other, &message, &far, 1) : KX_EIO;
	}
	kx_buf_done(&message);
	if (near < 0 || status != KX_OK)
		return kx_error_set(error, KX_EIO, KX_ERROR_RETRY, "the decoder host does not answer");
	host->fd = kx_steal_fd(&near);
	return KX_OK;
}

void kx_host_stop(struct kx_host *host)
{
	if (host->fd >= 0)
		close(host->fd);
	if (host->pid > 0) {
		kill(host->pid, SIGKILL);
		while (waitpid(host->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	*host = (struct kx_host){.fd = -1};
}

kx_status kx_host_run(struct kx_host *host, const struct kx_decode_request *request, const int *fds, size_t fd_count,
		      struct kx_error *error)
{
	const struct kx_host_header header = {.verb = KX_HOST_START, .ticket = request->ticket};
	struct kx_buf message = {.max = KX_HOST_MESSAGE_MAX};
	kx_status status = kx_buf_append(&message, &header, sizeof(header));

	if (status == KX_OK)
		status = kx_decode_request_pack(request, &message);
	if (status != KX_OK)
		kx_error_set(error, status, KX_ERROR_POISON, "decode request: %s", kx_status_name(status));
	else if (host->fd < 0 || fd_count > KX_HOST_FDS_MAX || send_with_fds(host, &message, fds, fd_count) != KX_OK)
		status = kx_error_set(error, KX_EIO, KX_ERROR_RETRY, "the decoder host does not answer");
	kx_buf_done(&message);
	return status;
}

kx_status kx_host_kill(struct kx_host *host, uint64_t ticket)
{
	const struct kx_host_header header = {.verb = KX_HOST_KILL, .ticket = ticket};

	if (host->fd < 0)
		return KX_EIO;
	return send(host->fd, &header, sizeof(header), MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof(header) ? KX_OK : KX_EIO;
}

kx_status kx_host_recv(struct kx_host *host, struct kx_host_exit *ret)
{
	struct kx_host_exit message;

	if (host->fd < 0)
		return KX_EIO;
	for (;;) {
		ssize_t got = recv(host->fd, &message, sizeof(message), MSG_DONTWAIT);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno == EAGAIN)
			return KX_EAGAIN;
		if (got < (ssize_t)sizeof(message.header))
			return KX_EIO;
		if (message.header.verb == KX_HOST_READY && message.header.error == KX_HOST_UNSAFE) {
			host->unsafe = true;
			return KX_EIO;
		}
		if (message.header.verb == KX_HOST_READY)
			host->ready = true;
		if (message.header.verb == KX_HOST_EXIT && got >= (ssize_t)KX_HOST_EXIT_LEN(0) &&
		    got == (ssize_t)KX_HOST_EXIT_LEN(message.words_len)) {
			*ret = message;
			return KX_OK;
		}
	}
}
