/* The parts of a pipeline, and who may touch what. Layer: worker/pipeline, private.
 *
 * A run is an accepted job. It waits; it gets a lane (a ring, and while it decodes a child); its items are inferred;
 * its moments are sunk; it is done. There are twice as many lanes as children may run, so that a new child can start
 * while the last items of an ended one still wait for a batch.
 *
 * One mutex guards every field below that is not marked otherwise. It is never held while something is decoded,
 * inferred, pooled, sunk, opened or received. The channel, its host and the lanes' rings belong to the channel thread
 * (streams only read slots, and give them back).
 */
#ifndef KX_WORKER_PIPELINE_INTERNAL_H
#define KX_WORKER_PIPELINE_INTERNAL_H

#include <pthread.h>

#include "common/wire/ring.h"
#include "worker/pipeline/assemble.h"
#include "worker/pipeline/batcher.h"
#include "worker/pipeline/channel.h"
#include "worker/pipeline/pipeline.h"

struct kx_run {
	struct kx_run *prev, *next;      /* in pipeline->runs */
	struct kx_run *next_waiting;
	struct kx_run *next_listed;
	struct kx_job *job;              /* constant */
	struct kx_pipeline_sink sink;    /* constant */
	struct kx_assembler track[KX_TRACKS];
	struct kx_lane *lane;
	uint64_t begun_us;

	bool opened;     /* info is there */
	bool ended;      /* END came and all was well */
	bool failed;     /* reason, retriable, message say why; nothing more is sunk */
	bool gone;       /* no child, now and later */
	bool listed;     /* in pipeline->listed */
	bool delivering;
	size_t items;    /* in the batcher or being inferred */

	enum kx_reason reason;
	bool retriable;
	char *message;
	struct kx_probe_info info;
	struct kx_decode_end end; /* message not used */
	uint64_t decode_cpu_us;
	bool had_child;
	struct kx_decode_request request; /* of the child; no strings */
	char *words;                      /* the child's, NULL: none */
	struct kx_failure failure;        /* filled for the outcome */
	uint64_t decode_rss_bytes;
};

/* A ring and the child that fills it. */
struct kx_lane {
	struct kx_run *run;       /* NULL: free */
	struct kx_ring *ring;
	bool stale;               /* a child may still write to the ring: not to be used again */
	bool alive;               /* the child has not exited */
	bool told_to_die;
	bool wall_killed;
	bool bound;               /* peer is known */
	struct kx_wire_peer peer;
	struct kx_decode_request limits; /* what the verdict needs; no strings */
	uint64_t ticket;
	uint64_t deadline_us;     /* wall limit; UINT64_MAX: none */
	struct kx_fetch_stream *stream; /* NULL: a file. The time it takes is not the decoder's */
	uint64_t full_since_us;   /* 0: the ring has free slots */
	uint64_t grace_us;        /* exited without END: until then END may still arrive; 0: not waiting */
	struct kx_host_exit exit;
	uint32_t used;
	bool *busy;               /* [ring slots] handed over and not given back */
};

/* An item on its way through inference. */
struct kx_work {
	struct kx_item item; /* first */
	struct kx_run *run;
	struct kx_row *row;
	uint32_t slot;
};

struct kx_stream {
	struct kx_pipeline *pipeline;
	pthread_t thread;
	bool started;
	struct kx_model_stream *model[KX_TRACKS];
	float *features; /* [burst][dim], of the larger track */
	float *scores;
};

struct kx_pipeline {
	size_t decoders, queue_max, stream_count, lane_count; /* constant, as are the next ones */
	struct kx_fetch *fetch;
	uint32_t ring_slots, slot_bytes;
	uint32_t width, height;
	const struct kx_bundle *bundle[KX_TRACKS];
	char space[KX_TRACKS][KX_SPACE_MAX];
	char spaces[2 * KX_SPACE_MAX + 4];
	enum kx_precision precision;
	size_t batch;
	char *model_cache;

	pthread_mutex_t load_lock;  /* guards the next two; where loaded is seen, all that loading set is */
	bool loaded;                /* models, streams, lanes and threads are there */
	struct kx_error load_error; /* why not, for good */

	struct kx_runtime *runtime;
	struct kx_model *model[KX_TRACKS];
	struct kx_stream *streams;

	struct kx_channel channel;  /* the channel thread's */
	uint64_t host_retry_us;     /* the channel thread's: when to start a host that is gone */
	uint64_t host_backoff_us;
	int epoll_fd, wake_fd;
	pthread_t thread;
	bool started;

	pthread_mutex_t lock;
	pthread_cond_t work;        /* streams wait for it */
	pthread_cond_t idle;        /* told when a run is done */
	bool locks_made;
	bool stopping;
	struct kx_run *runs;        /* all that are not done */
	size_t run_count;
	struct kx_run *waiting, **waiting_tail;
	size_t waiting_count;
	struct kx_run *listed, **listed_tail; /* with something to sink, or to be done with */
	struct kx_batcher batcher;
	size_t running;             /* children alive */
	struct kx_lane *lanes;
};

/* run.c: state of runs. The lock is held in all of these. */
struct kx_run *kx_run_new(struct kx_pipeline *pipeline, const struct kx_job *job, const struct kx_pipeline_sink *sink,
			  struct kx_error *error);            /* the lock need not be held; not yet linked */
void kx_run_free(struct kx_run *run);                         /* likewise */
void kx_run_link(struct kx_pipeline *pipeline, struct kx_run *run); /* accepted: it waits */
/* Its outcome is settled: only the first call counts. Its waiting items are dropped, its child is told to die. */
void kx_run_fail(struct kx_pipeline *pipeline, struct kx_run *run, enum kx_reason reason, bool retriable,
		 const char *message);
void kx_run_gone(struct kx_pipeline *pipeline, struct kx_run *run); /* it has no child any more */
void kx_run_kick(struct kx_pipeline *pipeline, struct kx_run *run); /* lists it, if there is something to do */
bool kx_run_finished(const struct kx_run *run);
void kx_run_outcome(struct kx_run *run, struct kx_outcome *ret); /* points into the run */
void kx_pipeline_wake(struct kx_pipeline *pipeline); /* the channel thread; async-signal-safe */

/* lane.c: the decoding side; the channel thread calls these with the lock held. */
kx_status kx_lane_prepare(struct kx_pipeline *pipeline, struct kx_lane *lane, struct kx_error *error) KX_MUST_CHECK;
void kx_lane_done(struct kx_lane *lane);
/* When its child is killed, as things stand. */
uint64_t kx_lane_deadline_us(const struct kx_lane *lane);
struct kx_lane *kx_lane_find(struct kx_pipeline *pipeline, uint64_t ticket);
void kx_lane_event(struct kx_pipeline *pipeline, const struct kx_wire_peer *peer, const struct kx_decode_event *event);
void kx_lane_exit(struct kx_pipeline *pipeline, const struct kx_host_exit *exit);
void kx_lane_host_died(struct kx_pipeline *pipeline, struct kx_lane *lane);
/* Applies what time asks for; returns when it wants to be called again at the latest. */
uint64_t kx_lane_tick(struct kx_pipeline *pipeline, struct kx_lane *lane, uint64_t now_us);
/* A slot was read. Any thread, lock held. */
void kx_lane_release(struct kx_lane *lane, uint32_t slot, uint64_t now_us);

/* prober.c: kx_channel_open() beside the prober's host. Waits for a probe that is under way. */
kx_status kx_prober_open_beside(struct kx_prober *prober, struct kx_channel *channel, const char *program,
				const char *run_dir, struct kx_error *error) KX_MUST_CHECK;

/* stream.c, feed.c: bodies of the threads. */
void *kx_stream_main(void *stream);
void *kx_feed_main(void *pipeline);

#endif
