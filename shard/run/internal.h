/* What the threads of a shard share; nobody else includes it. Layer: shard/run. */
#ifndef KX_SHARD_RUN_INTERNAL_H
#define KX_SHARD_RUN_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "common/base/thread.h"
#include "common/bus/topics.h"
#include "shard/query/query.h"
#include "shard/run/index.h"
#include "shard/run/outbox.h"
#include "shard/run/shard.h"

/* A thread that answers on one endpoint. */
struct kx_shard_server {
	struct kx_shard *shard;
	struct kx_wire_socket *socket; /* the thread's, once it runs */
	pthread_t thread;
	bool running;
	bool takes_orders;
};

struct kx_shard {
	struct kx_store *store;
	struct kx_mirror *mirror;
	struct kx_index *index; /* NULL: read-only, without one */
	struct kx_duplicates_file *duplicates;
	struct kx_stop stop;
	bool stop_ready;
	struct kx_bus *bus;
	struct kx_topics topics;
	struct kx_bus_consumer *consumer; /* the consuming thread's */
	struct kx_outbox *outbox;
	struct kx_shard_server queries, orders;
	pthread_t consumer_thread;
	bool consuming;
	atomic_ullong skipped;
	pthread_mutex_t lock; /* of the failure */
	struct kx_error failure;
};

/* Remembers the first failure, which health tells. */
void kx_shard_fail(struct kx_shard *shard, kx_status status, const struct kx_error *error);

/* Bodies of the threads. They end when stop is asked for or on failure. */
void *kx_shard_consume(void *shard);
void *kx_shard_serve(void *server);

/* Carries an order out beside whatever else the store is used for. */
kx_status kx_shard_take_care(struct kx_store *store, struct kx_index *index, const struct kx_care_order *order,
			     struct kx_care_done *ret, struct kx_error *error) KX_MUST_CHECK;

/* Takes its part of the results topic, once the store is that part's; offsets come from the store. */
kx_status kx_shard_subscribe(struct kx_shard *shard, const struct kx_shard_options *options, struct kx_error *error)
	KX_MUST_CHECK;

#endif
