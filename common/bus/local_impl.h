/* The in-process bus as its two files see it: local.c has topics and their logs, local_group.c has groups and
 * consumers. One lock for all of it; callbacks run without. Layer: bus, private to this folder. */
#ifndef KX_BUS_LOCAL_IMPL_H
#define KX_BUS_LOCAL_IMPL_H

#include <pthread.h>

#include "common/bus/bus_impl.h"
#include "common/bus/progress.h"

/* One partition's messages, oldest first, in a ring. */
struct kx_bus_local_log {
	struct kx_bus_record **ring;
	size_t cap, head, count;
	int64_t first; /* offset of the oldest held; with count 0, of the next one */
};

struct kx_bus_local_topic {
	struct kx_bus_local_topic *next;
	char *name;
	int partitions;
	struct kx_bus_local_log *logs;
	struct kx_bus_local_group *groups;
	size_t bytes;        /* held */
	pthread_cond_t room; /* fewer bytes are held */
};

/* A partition as one group sees it. `owner` has it; `heir` is to have it. They differ while the owner was not yet
 * told, which only its own thread does: so revoked() always comes before the next consumer's assigned(). */
struct kx_bus_local_share {
	struct kx_bus_local_consumer *owner, *heir;
	bool announced; /* the owner was told that it has it */
	bool unwanted;  /* nobody of the group is to have it: it holds no message back */
	uint64_t epoch;
	int64_t cursor; /* next to hand out */
	struct kx_bus_progress progress;
};

/* Lives as long as its topic: what it acknowledged stays acknowledged while nobody is in it. */
struct kx_bus_local_group {
	struct kx_bus_local_group *next;
	char *name;
	struct kx_bus_local_topic *topic;
	struct kx_bus_local_share *shares; /* a partition each */
	struct kx_bus_local_consumer *members;
};

struct kx_bus_local_consumer {
	struct kx_bus_consumer base;
	struct kx_bus_local *bus;
	struct kx_bus_local_group *group;
	struct kx_bus_local_consumer *next;
	struct kx_bus_subscription subscription; /* its strings are not kept */
	pthread_cond_t ready; /* something for receive() to look at */
	size_t in_flight_bytes, held;
	int turn;             /* partition to look at first, so that none starves another */
	int load;             /* shares it is to have; for balancing */
	bool woken;
};

struct kx_bus_local {
	struct kx_bus base;
	pthread_mutex_t lock;
	size_t topic_bytes_max;
	struct kx_bus_local_topic *topics;
	uint64_t epoch; /* of the last assignment */
};

/* All with the lock held. */
struct kx_bus_local_topic *kx_bus_local_find(struct kx_bus_local *bus, const char *name);
struct kx_bus_record *kx_bus_local_at(const struct kx_bus_local_log *log, int64_t offset); /* NULL: not there yet */
int64_t kx_bus_local_end(const struct kx_bus_local_log *log);
void kx_bus_local_trim(struct kx_bus_local *bus, struct kx_bus_local_topic *topic, int partition);
void kx_bus_local_announce(struct kx_bus_local_topic *topic, int partition); /* wakes who waits for a message */
void kx_bus_local_groups_free(struct kx_bus_local_topic *topic);

kx_status kx_bus_local_subscribe(struct kx_bus *bus, const struct kx_bus_subscription *subscription,
				 struct kx_bus_consumer **ret, struct kx_error *error);
kx_status kx_bus_local_receive(struct kx_bus_consumer *consumer, int timeout_ms, struct kx_bus_message *ret,
			       struct kx_error *error);
kx_status kx_bus_local_ack(struct kx_bus_consumer *consumer, int partition, int64_t offset, uint64_t epoch);
void kx_bus_local_wake(struct kx_bus_consumer *consumer);
void kx_bus_local_close(struct kx_bus_consumer *consumer);

#endif
