#include <stdlib.h>
#include <string.h>

#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "common/record/event.h"
#include "worker/run/internal.h"

#define ROOM_WAIT_MS 100 /* only how often a stop is looked for */

/* ---- lists ---- */

void kx_task_list_init(struct kx_task_list *list)
{
	*list = (struct kx_task_list){.tail = &list->head};
}

void kx_task_list_push(struct kx_task_list *list, struct kx_task *task)
{
	task->next = NULL;
	*list->tail = task;
	list->tail = &task->next;
}

struct kx_task *kx_task_list_pop(struct kx_task_list *list)
{
	struct kx_task *task = list->head;

	if (!task)
		return NULL;
	list->head = task->next;
	if (!list->head)
		list->tail = &list->head;
	return task;
}

void kx_task_list_unpop(struct kx_task_list *list, struct kx_task *task)
{
	task->next = list->head;
	if (!list->head)
		list->tail = &task->next;
	list->head = task;
}

void kx_task_list_take(struct kx_task_list *list, struct kx_task_list *from)
{
	if (!from->head)
		return;
	*list->tail = from->head;
	list->tail = from->tail;
	kx_task_list_init(from);
}

/* ---- results ---- */

static void settled(struct kx_task *task)
{
	struct kx_worker *worker = task->worker;
	bool detached;

	pthread_mutex_lock(&worker->lock);
	detached = worker->detached;
	if (!detached) {
		kx_task_list_push(&worker->settled, task);
		kx_bus_consumer_wake(worker->consumer);
	}
	pthread_mutex_unlock(&worker->lock);
	if (detached)
		kx_task_free(task);
}

static void drop_pending(struct kx_task *task)
{
	if (atomic_fetch_sub(&task->pending, 1) == 1)
		settled(task);
}

static void on_result_delivered(void *ctx, kx_status status)
{
	struct kx_task *task = ctx;

	if (status != KX_OK)
		atomic_store(&task->lost, true);
	drop_pending(task);
}

static kx_status publish_waiting(struct kx_task *task, const struct kx_buf *packed, struct kx_error *error)
{
	struct kx_worker *worker = task->worker;
	const char *topic = worker->topics.name[KX_TOPIC_RESULTS];
	const char *key = task->job->video_id;

	if (kx_fault("worker.result"))
		return kx_error_set(error, KX_EIO, KX_ERROR_RETRY, "injected");
	for (;;) {
		kx_status status = kx_bus_publish(worker->bus, topic, KX_BUS_KEYED, key, strlen(key), packed->data,
						  packed->len, on_result_delivered, task, error);

		if (status != KX_EAGAIN)
			return status;
		if (kx_stop_asked(&worker->stop))
			return KX_ECANCELED;
		status = kx_bus_wait_room(worker->bus, topic, ROOM_WAIT_MS);
		if (status != KX_OK && status != KX_ETIMEDOUT)
			return kx_error_set(error, status, KX_ERROR_FATAL, "waiting for room on the bus: %s",
					    kx_status_name(status));
	}
}

static void publish_result(struct kx_task *task, struct kx_result *result)
{
	struct kx_buf packed = {.max = KX_BUS_MESSAGE_MAX};
	struct kx_error error = {0};
	kx_status status;

	if (atomic_load(&task->lost))
		return;
	result->video_id = task->job->video_id;
	result->generation = task->job->generation;
	status = kx_result_pack(result, &packed);
	atomic_fetch_add(&task->pending, 1);
	if (status == KX_OK)
		status = publish_waiting(task, &packed, &error);
	if (status != KX_OK) {
		if (status != KX_ECANCELED)
			kx_log(KX_LOG_WARN, "%s: a result was not published: %s", task->job->video_id,
			       error.message[0] ? error.message : kx_status_name(status));
		atomic_store(&task->lost, true);
		atomic_fetch_sub(&task->pending, 1); /* the pipeline's own keeps it above 0 */
	}
	kx_buf_done(&packed);
}

void kx_task_moment(void *ctx, const struct kx_job *job, const struct kx_moment *moment)
{
	struct kx_result result = {.kind = KX_RESULT_MOMENT, .moment = *moment};

	(void)job;
	publish_result(ctx, &result);
}

void kx_task_done(void *ctx, const struct kx_job *job, const struct kx_outcome *outcome)
{
	struct kx_task *task = ctx;
	struct kx_result result = {.kind = KX_RESULT_PART_END, .part_end = outcome->end};

	(void)job;
	task->reason = outcome->reason;
	task->retriable = outcome->retriable;
	task->message = kx_strdup(outcome->message);
	task->decode_cpu_us = outcome->decode_cpu_us;
	task->wall_us = outcome->wall_us;
	task->media_us = outcome->end.has_visual ? outcome->end.visual_us : outcome->end.audio_us;
	if (outcome->reason == KX_REASON_NONE)
		publish_result(task, &result);
	if (outcome->failure && task->worker->failed)
		task->worker->failed(task->worker->failed_ctx, outcome->failure);
	atomic_fetch_sub(&task->worker->in_flight, 1);
	kx_worker_wake(task->worker); /* there is room for another job */
	drop_pending(task);
}

void kx_task_refuse(struct kx_task *task, enum kx_reason reason, char *message)
{
	task->reason = reason;
	task->message = message;
	drop_pending(task);
}

/* ---- its event ---- */

static void on_event_delivered(void *ctx, kx_status status)
{
	struct kx_task *task = ctx;

	task->event_lost = status != KX_OK;
	settled(task);
}

static struct kx_event event_of(const struct kx_task *task)
{
	const struct kx_job *job = task->job;
	struct kx_event event = {
		.run_id = job->run_id,
		.video_id = job->video_id,
		.generation = job->generation,
		.kind = task->reason == KX_REASON_NONE ? KX_EVENT_FINISHED : KX_EVENT_FAILED,
		.part = job->part,
		.attempt = job->attempt,
		.decode_cpu_us = task->decode_cpu_us,
		.media_us = task->media_us,
		.wall_us = task->wall_us,
		.reason = task->reason,
		.retriable = task->retriable,
		.message = task->message ? task->message : (char *)"",
	};

	if (atomic_load(&task->lost) && event.kind == KX_EVENT_FINISHED) {
		event.kind = KX_EVENT_FAILED;
		event.reason = KX_REASON_INTERNAL;
		event.retriable = true;
		event.message = (char *)"the bus did not take all results";
	}
	return event;
}

kx_status kx_task_publish_event(struct kx_task *task, struct kx_error *error)
{
	struct kx_worker *worker = task->worker;
	struct kx_event event = event_of(task);
	struct kx_buf packed = {.max = KX_BUS_MESSAGE_MAX};
	const char *key = task->job->video_id;
	kx_status status = kx_event_pack(&event, &packed);

	if (status != KX_OK) {
		kx_buf_done(&packed);
		return kx_error_set(error, status, KX_ERROR_FATAL, "%s: its event can't be packed: %s", key,
				    kx_status_name(status));
	}
	if (kx_fault("worker.event")) {
		kx_buf_done(&packed);
		return kx_error_set(error, KX_EIO, KX_ERROR_FATAL, "injected");
	}
	task->event_sent = true; /* before: the report may come before publish returns */
	status = kx_bus_publish(worker->bus, worker->topics.name[KX_TOPIC_RUNS], KX_BUS_KEYED, key, strlen(key),
				packed.data, packed.len, on_event_delivered, task, error);
	if (status != KX_OK)
		task->event_sent = false;
	kx_buf_done(&packed);
	return status;
}
