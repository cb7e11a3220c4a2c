/* A worker and its tasks. Layer: worker/run, private.
 *
 * A task is a job message on its way: backlog -> pipeline (results go out as they come) -> settled, when the last
 * delivery report of its results is in -> event -> settled again, when the event's report is in -> acknowledged.
 * Lists are intrusive and a task is in one list at a time. backlog and blocked belong to the worker's thread; settled
 * is under the lock. A task holds a reference to the worker, since delivery reports may come after the worker's end.
 */
#ifndef KX_WORKER_RUN_INTERNAL_H
#define KX_WORKER_RUN_INTERNAL_H

#include <pthread.h>

#include "common/bus/topics.h"
#include "worker/run/worker.h"

struct kx_task {
	struct kx_task *next;
	struct kx_worker *worker;
	struct kx_job *job;
	int partition;
	int64_t offset;
	uint64_t epoch;
	_Atomic size_t pending; /* reports that are awaited; one more while the pipeline has it */
	atomic_bool lost;       /* a result was not delivered */
	bool event_sent;
	bool event_lost;        /* written by its delivery report, before the task is settled */
	enum kx_reason reason;  /* how it went; KX_REASON_NONE: well */
	bool retriable;
	char *message;
	uint64_t decode_cpu_us, wall_us, media_us;
};

struct kx_task_list {
	struct kx_task *head;
	struct kx_task **tail;
};

struct kx_worker {
	atomic_uint refs; /* the owner's, and one a task */
	struct kx_bus *bus;
	struct kx_pipeline *pipeline;
	struct kx_topics topics;
	kx_failure_visit *failed;
	void *failed_ctx;
	char *group;
	size_t in_flight_max;
	_Atomic size_t in_flight; /* in the pipeline */
	struct kx_stop stop;
	pthread_t thread;
	struct kx_task_list backlog, blocked; /* blocked: no room for their event yet */

	pthread_mutex_t lock;
	struct kx_bus_consumer *consumer; /* changed under the lock; NULL when detached */
	bool detached;
	struct kx_task_list settled;
	struct kx_error health;
};

void kx_worker_wake(struct kx_worker *worker);
void kx_worker_fail(struct kx_worker *worker, const struct kx_error *error);

/* task.c */
void kx_task_list_init(struct kx_task_list *list);
void kx_task_list_push(struct kx_task_list *list, struct kx_task *task);
struct kx_task *kx_task_list_pop(struct kx_task_list *list);                     /* NULL: empty */
void kx_task_list_unpop(struct kx_task_list *list, struct kx_task *task);        /* to the front again */
void kx_task_list_take(struct kx_task_list *list, struct kx_task_list *from);    /* all of from, to the end */

void kx_task_free(struct kx_task *task);
/* The pipeline's sink; ctx is the task. */
void kx_task_moment(void *ctx, const struct kx_job *job, const struct kx_moment *moment);
void kx_task_done(void *ctx, const struct kx_job *job, const struct kx_outcome *outcome);
/* It never went to the pipeline. Takes the message; NULL when there was no memory for it. */
void kx_task_refuse(struct kx_task *task, enum kx_reason reason, char *message);
/* KX_EAGAIN: no room. When it is KX_OK the task may be settled already. */
kx_status kx_task_publish_event(struct kx_task *task, struct kx_error *error) KX_MUST_CHECK;

#endif
