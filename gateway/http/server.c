#include "gateway/http/server.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "common/base/thread.h"
#include "gateway/http/internal.h"

#define BACKLOG 511
#define WATCH_MS 250
#define LAST_TURN_MS 10000 /* for the thread of the sockets to take what handlers answered: it needs a CPU, and no client */
#define LAST_SEND_MS 300   /* and for clients to take it from there */

/* "host:port", "[v6]:port" into its two parts. */
static bool split_address(const char *text, char *host, size_t host_len, char *port, size_t port_len)
{
	const char *colon = strrchr(text, ':');
	bool bracket = text[0] == '[';
	const char *from = bracket ? text + 1 : text;

	if (colon == NULL || (bracket && (colon == text || colon[-1] != ']')) || (!bracket && strchr(text, ':') != colon))
		return false;
	size_t len = (size_t)(colon - from) - bracket;
	if (len == 0 || len >= host_len || strlen(colon + 1) >= port_len || colon[1] == '\0')
		return false;
	memcpy(host, from, len);
	host[len] = '\0';
	strcpy(port, colon + 1);
	return true;
}

static bool is_loopback(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == 127;
	return address->sa_family == AF_INET6 &&
	       IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
}

static kx_status resolve(const char *text, struct addrinfo **ret, struct kx_error *error)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
	char host[64], port[8];
	uint64_t number;

	if (split_address(text, host, sizeof(host), port, sizeof(port)) &&
	    kx_parse_u64(port, &number) == KX_OK && number <= UINT16_MAX &&
	    getaddrinfo(strcmp(host, "localhost") == 0 ? "127.0.0.1" : host, port, &hints, ret) == 0)
		return KX_OK;
	return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
			    "listening at %s: not an address and a port, as in 127.0.0.1:8080 or [::1]:8080", text);
}

static kx_status open_listener(const struct addrinfo *address, const char *text, int *ret, struct kx_error *error)
{
	int on = 1;
	int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd >= 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (fd >= 0 && bind(fd, address->ai_addr, address->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0) {
		*ret = fd;
		return KX_OK;
	}
	kx_status status = errno == EADDRINUSE
				   ? kx_error_set(error, KX_EBUSY, KX_ERROR_FATAL,
						  "listening at %s: another program listens there", text)
				   : kx_error_from_errno(error, errno, "listening at %s", text);
	if (fd >= 0)
		close(fd);
	return status;
}

static kx_status listen_at(struct kx_http_server *server, struct kx_error *error)
{
	const char *text = server->options.listen;
	struct addrinfo *address = NULL;
	kx_status status = resolve(text, &address, error);

	if (status == KX_OK && !server->options.anywhere && !is_loopback(address->ai_addr))
		status = kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
				      "listening at %s: others can reach that address, and nobody is asked who they are; say "
				      "so with --listen-anywhere, or listen at 127.0.0.1 behind a proxy that asks",
				      text);
	if (status == KX_OK)
		status = open_listener(address, text, &server->listener, error);
	if (address != NULL)
		freeaddrinfo(address);
	return status;
}

static void name_address(struct kx_http_server *server)
{
	struct sockaddr_storage bound = {0};
	socklen_t len = sizeof(bound);
	char host[64] = "?", port[8] = "?";

	(void)getsockname(server->listener, (struct sockaddr *)&bound, &len);
	(void)getnameinfo((struct sockaddr *)&bound, len, host, sizeof(host), port, sizeof(port),
			  NI_NUMERICHOST | NI_NUMERICSERV);
	snprintf(server->address, sizeof(server->address), bound.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

/* Escapes are ours to undo: the library would turn an id's %2F into one more part of the path. */
static size_t leave_escapes(void *ctx, struct MHD_Connection *connection, char *text)
{
	(void)ctx, (void)connection;
	return strlen(text);
}

static void log_line(void *ctx, const char *format, va_list args)
{
	char line[512];

	(void)ctx;
	vsnprintf(line, sizeof(line), format, args);
	line[strcspn(line, "\r\n")] = '\0';
	kx_log(KX_LOG_DEBUG, "http: %s", line);
}

static kx_status start_daemon(struct kx_http_server *server, struct kx_error *error)
{
	server->daemon = MHD_start_daemon(
		MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC | MHD_USE_ERROR_LOG, 0, NULL, NULL,
		kx_exchange_access, server, MHD_OPTION_EXTERNAL_LOGGER, log_line, NULL, MHD_OPTION_LISTEN_SOCKET,
		server->listener, MHD_OPTION_URI_LOG_CALLBACK, kx_exchange_open, server, MHD_OPTION_NOTIFY_COMPLETED,
		kx_exchange_completed, server, MHD_OPTION_NOTIFY_CONNECTION, kx_connection_changed, server,
		MHD_OPTION_UNESCAPE_CALLBACK, leave_escapes, NULL, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
		server->options.head_max, MHD_OPTION_CONNECTION_LIMIT, server->options.connections_max,
		MHD_OPTION_CONNECTION_TIMEOUT, 0u, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
		MHD_OPTION_END);
	if (server->daemon == NULL)
		return kx_error_set(error, KX_EIO, KX_ERROR_FATAL, "the HTTP server does not start at %s",
				    server->options.listen);
	return KX_OK;
}

/* Cuts what took too long. The library has a limit for silence only, which a byte now and then defeats. The descriptor
 * can't be another's: the library closes it only after it left the list. */
static void *watch(void *arg)
{
	struct kx_http_server *server = arg;

	pthread_mutex_lock(&server->lock);
	while (server->watching) {
		struct timespec next = kx_clock_deadline(WATCH_MS);
		uint64_t now = kx_clock_mono_us();

		for (struct kx_connection *place = server->connections; place != NULL; place = place->next)
			if (place->phase != KX_PHASE_WORK && now >= place->until_us)
				(void)shutdown(place->fd, SHUT_RDWR);
		(void)pthread_cond_timedwait(&server->changed, &server->lock, &next);
	}
	pthread_mutex_unlock(&server->lock);
	return NULL;
}

static kx_status start(struct kx_http_server *server, struct kx_error *error)
{
	kx_status status = listen_at(server, error);

	if (status == KX_OK) {
		name_address(server);
		status = kx_pool_start(server, error);
	}
	if (status == KX_OK) {
		server->watching = true;
		status = kx_thread_start(&server->watcher, "http-watch", watch, server, error);
		if (status != KX_OK)
			server->watching = false; /* there is nobody to end */
	}
	return status == KX_OK ? start_daemon(server, error) : status;
}

kx_status kx_http_start(const struct kx_http_options *options, struct kx_http_server **ret, struct kx_error *error)
{
	struct kx_http_server *server = calloc(1, sizeof(*server));

	if (server == NULL)
		return kx_error_nomem(error);
	server->options = *options;
	server->listener = -1;
	pthread_mutex_init(&server->lock, NULL);
	pthread_mutex_init(&server->pool.lock, NULL);
	pthread_cond_init(&server->pool.work, NULL);
	kx_status status = kx_cond_init(&server->changed);
	if (status == KX_OK)
		status = start(server, error);
	if (status == KX_OK)
		*ret = server;
	else
		kx_http_stop(server, 0, NULL, NULL);
	return status;
}

const char *kx_http_address(const struct kx_http_server *server)
{
	return server->address;
}

void kx_http_now(struct kx_http_server *server, struct kx_http_now *ret)
{
	pthread_mutex_lock(&server->lock);
	ret->connections = server->connection_count;
	ret->at_work = server->in_hand;
	pthread_mutex_unlock(&server->lock);
	pthread_mutex_lock(&server->pool.lock);
	ret->queued = server->pool.waiting;
	pthread_mutex_unlock(&server->pool.lock);
	ret->body_bytes = atomic_load(&server->body_bytes);
}

/* Until all that is in hand is finished, or the time is over. */
static void drain(struct kx_http_server *server, unsigned ms)
{
	struct timespec until = kx_clock_deadline(ms);

	pthread_mutex_lock(&server->lock);
	while (server->in_hand > 0 && pthread_cond_timedwait(&server->changed, &server->lock, &until) == 0)
		continue;
	pthread_mutex_unlock(&server->lock);
}

static bool is_anyone_at_work(const struct kx_http_server *server)
{
	for (const struct kx_connection *place = server->connections; place != NULL; place = place->next)
		if (place->phase == KX_PHASE_WORK)
			return true;
	return false;
}

/* What the end of the grace time made handlers answer: until all of it is on its way, and then some. */
static void send_last(struct kx_http_server *server)
{
	struct timespec until = kx_clock_deadline(LAST_TURN_MS);

	pthread_mutex_lock(&server->lock);
	while (is_anyone_at_work(server) && pthread_cond_timedwait(&server->changed, &server->lock, &until) == 0)
		continue;
	pthread_mutex_unlock(&server->lock);
	drain(server, LAST_SEND_MS);
}

static void end_watch(struct kx_http_server *server)
{
	if (!server->watching)
		return;
	pthread_mutex_lock(&server->lock);
	server->watching = false;
	pthread_cond_broadcast(&server->changed);
	pthread_mutex_unlock(&server->lock);
	pthread_join(server->watcher, NULL);
}

void kx_http_stop(struct kx_http_server *server, unsigned grace_ms, void (*cancel)(void *ctx), void *ctx)
{
	if (server == NULL)
		return;
	atomic_store(&server->stopping, true);
	if (server->daemon != NULL) {
		(void)MHD_quiesce_daemon(server->daemon);
		drain(server, grace_ms);
	}
	kx_pool_close(server);
	if (cancel != NULL)
		cancel(ctx);
	kx_pool_join(server);
	if (server->daemon != NULL) {
		send_last(server);
		end_watch(server); /* it must not look at connections that go */
		MHD_stop_daemon(server->daemon);
	}
	end_watch(server);
	if (server->listener >= 0)
		close(server->listener);
	pthread_cond_destroy(&server->changed);
	pthread_cond_destroy(&server->pool.work);
	pthread_mutex_destroy(&server->pool.lock);
	pthread_mutex_destroy(&server->lock);
	free(server);
}
