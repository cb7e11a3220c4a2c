/* What server.c, exchange.c and pool.c share; nobody else includes it. Layer: gateway/http. */
#ifndef KX_GATEWAY_HTTP_INTERNAL_H
#define KX_GATEWAY_HTTP_INTERNAL_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "gateway/http/server.h"

/* What a connection is at. */
enum kx_phase {
	KX_PHASE_RECEIVE, /* idle, or a request is arriving */
	KX_PHASE_WORK,    /* waits for a thread or is handled */
	KX_PHASE_SEND,
};

/* One a socket, from accept to close. Its fields are the lock's of the server. */
struct kx_connection {
	struct kx_http_server *server;
	struct kx_connection *next, *prev;
	int fd; /* open as long as this is in the list */
	enum kx_phase phase;
	uint64_t until_us; /* then it is cut, unless at work */
};

/* One request and its response. The thread of the sockets has it, but for the time between submit and resume. */
struct kx_exchange {
	struct kx_http_server *server;
	struct MHD_Connection *connection;
	struct kx_connection *place;
	struct kx_exchange *next; /* in the queue */
	char *raw;                /* target as it came */
	struct kx_http_request request;
	struct kx_http_response response;
	struct kx_buf body;
	size_t reserved;          /* of the server's bodies_max */
	size_t discarded;         /* of a body that is not wanted */
	bool begun;               /* its head was looked at */
	bool refused;             /* what still comes of the body is dropped */
	bool in_hand;             /* counted as such */
	bool answered;            /* the response is there */
	bool queued;              /* and was handed to the library */
};

struct kx_pool {
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct kx_exchange *first, *last;
	unsigned waiting;
	unsigned running;
	unsigned thread_count;
	pthread_t *threads;
	bool closing;
};

struct kx_http_server {
	struct kx_http_options options;
	struct MHD_Daemon *daemon;
	int listener;
	char address[80];
	struct kx_pool pool;
	atomic_bool stopping;
	atomic_size_t body_bytes;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* while stopping: in_hand or a phase changed; or watching is to end */
	struct kx_connection *connections;
	unsigned connection_count;
	unsigned in_hand; /* requests that arrived whole and are not finished */
	bool watching;
	pthread_t watcher;
};

/* --- exchange.c: the library's callbacks --- */
void *kx_exchange_open(void *server, const char *uri, struct MHD_Connection *connection);
enum MHD_Result kx_exchange_access(void *server, struct MHD_Connection *connection, const char *url,
				   const char *method, const char *version, const char *upload, size_t *upload_len,
				   void **exchange);
void kx_exchange_completed(void *server, struct MHD_Connection *connection, void **exchange,
			   enum MHD_RequestTerminationCode code);
void kx_connection_changed(void *server, struct MHD_Connection *connection, void **place,
			   enum MHD_ConnectionNotificationCode code);
void kx_connection_phase(struct kx_connection *place, enum kx_phase phase, uint64_t until_us);

/* --- pool.c --- */
kx_status kx_pool_start(struct kx_http_server *server, struct kx_error *error) KX_MUST_CHECK;
/* Suspends the connection and queues. False: there is no room, and nothing happened. */
bool kx_pool_submit(struct kx_http_server *server, struct kx_exchange *exchange);
/* What waits is refused from now on; then returns when no thread is left. */
void kx_pool_close(struct kx_http_server *server);
void kx_pool_join(struct kx_http_server *server);

#endif
