/* The decoder host: a small single-threaded process that forks one child a job. A fork of a process without threads
 * is safe and takes about a millisecond, with libav already loaded; every limit and every account is then a job's own.
 * Clients, such as a prober and a pipeline, may share a host: what one asks for, the others hear nothing of.
 *
 * It needs no parent-death signal: that one fires when the *thread* that made us ends. The end of the control socket
 * says that the process is gone. Children have the signal, since we are one thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/macros.h"
#include "common/wire/wire.h"
#include "worker/media/media.h"
#include "worker/pipeline/child.h"
#include "worker/pipeline/confine.h"
#include "worker/pipeline/pipeline.h"
#include "worker/pipeline/protocol.h"
#include "worker/pipeline/sandbox.h"

struct host {
	int signals; /* signalfd for SIGCHLD */
	pid_t pid;
	struct kx_sandbox *sandbox; /* NULL: the user wants none */
	bool unsafe;                /* it can't lock children in, and should */
	struct kx_wire *wire;       /* never used: what ZeroMQ sets up once a process, children then find done */
	int clients[KX_HOST_CLIENTS_MAX]; /* control sockets; the end of the first is the host's */
	size_t client_count;
	size_t count;
	struct {
		pid_t pid;
		int client; /* who wants to hear of it; -1: nobody any more */
		int words;  /* the end of its standard output and error that is read */
		uint64_t ticket;
	} children[KX_HOST_CHILDREN_MAX];
};

struct order {
	_Alignas(struct kx_host_header) uint8_t bytes[KX_HOST_MESSAGE_MAX];
	size_t len;
	int fds[KX_HOST_FDS_MAX + 1]; /* the control buffer's padding has room for one more */
	size_t fd_count;
};

/* False: nobody is left to work for. A client that joined and is gone is found out by the end of its socket. */
static bool tell(int client, const void *message, size_t len)
{
	bool told = client >= 0 && send(client, message, len, MSG_NOSIGNAL) == (ssize_t)len;

	return told || client != KX_HOST_CONTROL_FD;
}

static bool tell_not_started(int client, uint64_t ticket, int error)
{
	const struct kx_host_exit exit = {
		.header = {.verb = KX_HOST_EXIT, .error = (uint32_t)error, .ticket = ticket},
	};

	return tell(client, &exit, KX_HOST_EXIT_LEN(0));
}

static void close_fds(struct order *order)
{
	for (size_t i = 0; i < order->fd_count; i++)
		close(order->fds[i]);
	order->fd_count = 0;
}

static void take_fds(struct msghdr *header, struct order *order)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		order->fd_count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(order->fds, CMSG_DATA(c), order->fd_count * sizeof(int));
	}
}

/* False at the end of the socket. */
static bool receive(int client, struct order *order)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(KX_HOST_FDS_MAX * sizeof(int))];
	struct iovec io = {.iov_base = order->bytes, .iov_len = sizeof(order->bytes)};
	struct msghdr header = {
		.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	ssize_t got = recvmsg(client, &header, MSG_CMSG_CLOEXEC);

	order->fd_count = 0;
	if (got <= 0)
		return false;
	order->len = (size_t)got;
	take_fds(&header, order);
	return order->len >= sizeof(struct kx_host_header) && !(header.msg_flags & (MSG_TRUNC | MSG_CTRUNC));
}

static _Noreturn void child_begin(const struct host *host, const struct kx_decode_request *request,
				  const struct order *order, int words)
{
	sigset_t none;

	sigemptyset(&none);
	if (sigprocmask(SIG_SETMASK, &none, NULL) != 0 || dup2(words, STDOUT_FILENO) < 0 ||
	    dup2(words, STDERR_FILENO) < 0 || kx_confine(host->pid, request, order->fds, order->fd_count) != KX_OK ||
	    (host->sandbox && kx_sandbox_prepare(host->sandbox) != KX_OK))
		_exit(KX_CHILD_SETUP);
	_exit((int)kx_child_main(request, order->fds, host->sandbox, host->pid));
}

static int spawn(struct host *host, int client, const struct kx_decode_request *request, const struct order *order)
{
	size_t wanted = request->purpose != KX_DECODE_SAMPLE ? 1 : KX_HOST_FDS_MAX;
	int words[2];
	pid_t pid;

	if (order->fd_count != wanted)
		return EBADMSG;
	if (host->count == KX_HOST_CHILDREN_MAX)
		return EAGAIN;
	/* A pipe holds 64 KiB; what a child says beyond that is lost to it, and nobody waits. */
	if (pipe2(words, O_CLOEXEC | O_NONBLOCK) != 0)
		return errno;
	pid = fork();
	if (pid == 0)
		child_begin(host, request, order, words[1]);
	close(words[1]);
	if (pid < 0) {
		close(words[0]);
		return EAGAIN;
	}
	host->children[host->count].pid = pid;
	host->children[host->count].client = client;
	host->children[host->count].words = words[0];
	host->children[host->count].ticket = request->ticket;
	host->count++;
	return 0;
}

static bool start(struct host *host, int client, struct order *order)
{
	const struct kx_host_header *header = (const void *)order->bytes;
	KX_CLEANUP(kx_decode_request_cleanup) struct kx_decode_request *request = NULL;
	int error = EBADMSG;

	if (kx_decode_request_unpack(order->bytes + sizeof(*header), order->len - sizeof(*header), &request, NULL) ==
	    KX_OK)
		error = spawn(host, client, request, order);
	close_fds(order);
	return error == 0 || tell_not_started(client, header->ticket, error);
}

static void stop(struct host *host, int client, uint64_t ticket)
{
	for (size_t i = 0; i < host->count; i++) {
		if (host->children[i].client == client && host->children[i].ticket == ticket)
			kill(host->children[i].pid, SIGKILL);
	}
}

static bool say_ready(const struct host *host, int client)
{
	const struct kx_host_header ready = {.verb = KX_HOST_READY, .error = host->unsafe ? KX_HOST_UNSAFE : 0};

	return tell(client, &ready, sizeof(ready));
}

/* A socket that there is no room for is closed, and by that its owner knows. */
static bool join(struct host *host, struct order *order)
{
	int client = order->fds[0];

	if (order->fd_count != 1 || host->client_count == KX_HOST_CLIENTS_MAX) {
		close_fds(order);
		return true;
	}
	host->clients[host->client_count++] = client;
	return say_ready(host, client);
}

/* False: it was the first. */
static bool part_with(struct host *host, int client)
{
	if (client == KX_HOST_CONTROL_FD)
		return false;
	for (size_t i = 0; i < host->count; i++) {
		if (host->children[i].client != client)
			continue;
		host->children[i].client = -1;
		kill(host->children[i].pid, SIGKILL);
	}
	for (size_t i = 0; i < host->client_count; i++) {
		if (host->clients[i] == client)
			host->clients[i] = host->clients[--host->client_count];
	}
	close(client);
	return true;
}

static bool obey(struct host *host, int client)
{
	struct order order;
	const struct kx_host_header *header = (const void *)order.bytes;

	if (!receive(client, &order)) {
		close_fds(&order);
		return part_with(host, client);
	}
	if (header->verb == KX_HOST_START)
		return start(host, client, &order);
	if (header->verb == KX_HOST_JOIN)
		return join(host, &order);
	close_fds(&order);
	if (header->verb == KX_HOST_KILL)
		stop(host, client, header->ticket);
	return true;
}

static uint64_t micros(struct timeval time)
{
	return (uint64_t)time.tv_sec * 1000000u + (uint64_t)time.tv_usec;
}

/* All goes to our own standard error, for people; the end of it into the message. */
static void take_words(int fd, struct kx_host_exit *exit)
{
	char part[KX_HOST_WORDS_MAX];
	ssize_t got;

	while ((got = read(fd, part, sizeof(part))) > 0) {
		size_t len = (size_t)got, kept = exit->words_len;

		if (kept + len > sizeof(exit->words))
			kept = sizeof(exit->words) - len;
		memmove(exit->words, exit->words + exit->words_len - kept, kept);
		memcpy(exit->words + kept, part, len);
		exit->words_len = (uint32_t)(kept + len);
		fwrite(part, 1, len, stderr);
	}
}

static bool tell_exit(struct host *host, pid_t pid, int wait_status, const struct rusage *usage)
{
	struct kx_host_exit exit;

	for (size_t i = 0; i < host->count; i++) {
		int client = host->children[i].client;

		if (host->children[i].pid != pid)
			continue;
		exit.header = (struct kx_host_header){.verb = KX_HOST_EXIT, .ticket = host->children[i].ticket};
		exit.cpu_us = micros(usage->ru_utime) + micros(usage->ru_stime);
		exit.max_rss_bytes = (uint64_t)usage->ru_maxrss * 1024u;
		exit.wait_status = wait_status;
		exit.words_len = 0;
		take_words(host->children[i].words, &exit);
		close(host->children[i].words);
		host->children[i] = host->children[--host->count];
		return tell(client, &exit, KX_HOST_EXIT_LEN(exit.words_len));
	}
	return true;
}

static bool reap(struct host *host)
{
	struct signalfd_siginfo drop;
	struct rusage usage;
	int wait_status;
	pid_t pid;

	if (read(host->signals, &drop, sizeof(drop)) < 0 && errno != EAGAIN && errno != EINTR)
		return false;
	while ((pid = wait4(-1, &wait_status, WNOHANG, &usage)) > 0) {
		if (!tell_exit(host, pid, wait_status, &usage))
			return false;
	}
	return true;
}

static bool step(struct host *host)
{
	struct pollfd polls[1 + KX_HOST_CLIENTS_MAX] = {{.fd = host->signals, .events = POLLIN}};
	size_t count = 1;
	bool going = true;

	for (size_t i = 0; i < host->client_count; i++)
		polls[count++] = (struct pollfd){.fd = host->clients[i], .events = POLLIN};
	if (poll(polls, count, -1) < 0)
		return errno == EINTR;
	if (polls[0].revents)
		going = reap(host);
	for (size_t i = 1; i < count && going; i++) { /* of clients as they were: one that joins meanwhile comes next */
		if (polls[i].revents)
			going = obey(host, polls[i].fd);
	}
	return going;
}

static kx_status open_sandbox(struct host *host)
{
	const char *wanted = getenv(KX_SANDBOX_VARIABLE);
	struct kx_error error = {0};
	kx_status status;

	if (wanted && strcmp(wanted, "off") == 0)
		return KX_OK;
	status = kx_sandbox_new(&host->sandbox, &error);
	if (status != KX_OK && status != KX_EUNSUPPORTED)
		fprintf(stderr, "kinodex: %s\n", error.message);
	return status;
}

static bool begin(struct host *host)
{
	sigset_t set;

	host->pid = getpid();
	host->clients[host->client_count++] = KX_HOST_CONTROL_FD;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
		return false;
	host->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (host->signals < 0)
		return false;
	kx_media_init();
	kx_media_warm();
	if (kx_wire_new(&host->wire, NULL) != KX_OK)
		return false;
	host->unsafe = open_sandbox(host) != KX_OK;
	return say_ready(host, KX_HOST_CONTROL_FD);
}

static void end(struct host *host)
{
	for (size_t i = 0; i < host->count; i++)
		kill(host->children[i].pid, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		;
	if (host->signals >= 0)
		close(host->signals);
	kx_sandbox_free(host->sandbox);
	kx_wire_free(host->wire);
}

int kx_decoder_host_main(void)
{
	struct host host = {.signals = -1};
	int type = 0;
	socklen_t len = sizeof(type);

	if (getsockopt(KX_HOST_CONTROL_FD, SOL_SOCKET, SO_TYPE, &type, &len) != 0 || type != SOCK_SEQPACKET) {
		fprintf(stderr, "decoder-host is started by kinodex itself, not by hand\n");
		return 2;
	}
	if (!begin(&host))
		return 1;
	while (step(&host))
		;
	end(&host);
	return 0;
}
