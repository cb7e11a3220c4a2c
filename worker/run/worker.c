#include "worker/run/worker.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/str.h"
#include "worker/run/internal.h"

#define RECEIVE_MS 200
/* Jobs taken from the bus wait here until the pipeline has room. They are some hundred bytes each. */
#define BACKLOG_BYTES (64u << 10)

static void worker_unref(struct kx_worker *worker)
{
	if (atomic_fetch_sub(&worker->refs, 1) != 1)
		return;
	pthread_mutex_destroy(&worker->lock);
	kx_stop_done(&worker->stop);
	free(worker->group);
	free(worker);
}

void kx_task_free(struct kx_task *task)
{
	struct kx_worker *worker = task->worker;

	kx_job_free(task->job);
	free(task->message);
	free(task);
	worker_unref(worker);
}

void kx_worker_wake(struct kx_worker *worker)
{
	pthread_mutex_lock(&worker->lock);
	if (worker->consumer)
		kx_bus_consumer_wake(worker->consumer);
	pthread_mutex_unlock(&worker->lock);
}

void kx_worker_fail(struct kx_worker *worker, const struct kx_error *error)
{
	pthread_mutex_lock(&worker->lock);
	if (worker->health.status == KX_OK)
		worker->health = *error;
	pthread_mutex_unlock(&worker->lock);
	kx_stop_ask(&worker->stop);
}

/* ---- tasks from messages ---- */

static struct kx_task *task_new(struct kx_worker *worker, const struct kx_bus_message *message, struct kx_error *error)
{
	struct kx_task *task = calloc(1, sizeof(*task));

	if (!task) {
		kx_error_nomem(error);
		return NULL;
	}
	if (kx_job_unpack(message->payload, message->len, &task->job, error) != KX_OK) {
		free(task);
		return NULL;
	}
	task->worker = worker;
	atomic_fetch_add(&worker->refs, 1);
	task->partition = message->partition;
	task->offset = message->offset;
	task->epoch = message->epoch;
	atomic_init(&task->pending, 1);
	atomic_init(&task->lost, false);
	return task;
}

static void acknowledge(struct kx_worker *worker, int partition, int64_t offset, uint64_t epoch)
{
	kx_status status = kx_bus_ack(worker->consumer, partition, offset, epoch);

	/* Fenced: somebody else has the job now, and both give the same results. */
	if (status != KX_OK && status != KX_ECANCELED)
		kx_log(KX_LOG_WARN, "a finished job was not acknowledged (%s) and will come again",
		       kx_status_name(status));
}

/* What is no job can't be told to the ledger either: it is logged, and must not block its partition. */
static void skip_message(struct kx_worker *worker, const struct kx_bus_message *message, struct kx_error *error)
{
	kx_error_prefix(error, KX_ECORRUPT, "%s[%d] at %lld", message->topic, message->partition,
			(long long)message->offset);
	kx_log_failure(error);
	acknowledge(worker, message->partition, message->offset, message->epoch);
}

static void take_message(struct kx_worker *worker, const struct kx_bus_message *message)
{
	struct kx_error error = {0};
	struct kx_task *task = task_new(worker, message, &error);

	if (task)
		kx_task_list_push(&worker->backlog, task);
	else if (error.status == KX_ENOMEM || error.status == KX_EVERSION) /* another worker may do better */
		kx_worker_fail(worker, &error);
	else
		skip_message(worker, message, &error);
}

/* The partition has gone to another worker: what has not begun is its work now. */
static void on_revoked(void *ctx, int partition)
{
	struct kx_worker *worker = ctx;
	struct kx_task **at = &worker->backlog.head;

	while (*at) {
		struct kx_task *task = *at;

		if (task->partition != partition) {
			at = &task->next;
			continue;
		}
		*at = task->next;
		kx_task_free(task);
	}
	worker->backlog.tail = at;
}

/* ---- jobs to the pipeline ---- */

static bool recipe_fits(const struct kx_worker *worker, const struct kx_job *job)
{
	struct kx_sampling sampling = kx_job_sampling(job);
	uint8_t ours[KX_SHA_LEN];

	kx_pipeline_recipe(worker->pipeline, &sampling, ours);
	return memcmp(ours, job->recipe_sha256, sizeof(ours)) == 0;
}

static void refuse(struct kx_task *task, enum kx_reason reason, char *message)
{
	atomic_fetch_sub(&task->worker->in_flight, 1);
	kx_task_refuse(task, reason, message);
}

static void refuse_recipe(struct kx_task *task)
{
	const struct kx_job *job = task->job;

	refuse(task, KX_REASON_UNSUPPORTED,
	       kx_strf("planned for other bundles or another sampling than this worker's (%s; asked for %g frames a "
		       "second, %s, moments of %g s): give coordinator and workers the same bundles, and index again",
		       kx_pipeline_spaces(task->worker->pipeline), job->fps, kx_decode_mode_name(job->decode_mode),
		       (double)job->moment_us * 1e-6));
}

/* False: the pipeline has no room, and the task is still the caller's. */
static bool submit(struct kx_worker *worker, struct kx_task *task)
{
	const struct kx_pipeline_sink sink = {
		.ctx = task,
		.owner = worker,
		.moment = kx_task_moment,
		.done = kx_task_done,
	};
	struct kx_error error = {0};
	kx_status status;

	if (!recipe_fits(worker, task->job)) {
		refuse_recipe(task);
		return true;
	}
	status = kx_pipeline_submit(worker->pipeline, task->job, &sink, &error);
	if (status == KX_EAGAIN || status == KX_ECANCELED)
		return false;
	if (status != KX_OK && error.class == KX_ERROR_FATAL) { /* ours, and of every job */
		kx_worker_fail(worker, &error);
		return false;
	}
	if (status != KX_OK)
		refuse(task, KX_REASON_INTERNAL, kx_strdup(error.message));
	return true;
}

static void submit_backlog(struct kx_worker *worker)
{
	while (worker->backlog.head && atomic_load(&worker->in_flight) < worker->in_flight_max) {
		struct kx_task *task = kx_task_list_pop(&worker->backlog);

		atomic_fetch_add(&worker->in_flight, 1);
		if (submit(worker, task))
			continue;
		atomic_fetch_sub(&worker->in_flight, 1);
		kx_task_list_unpop(&worker->backlog, task);
		return;
	}
}

/* ---- finished tasks ---- */

static void close_task(struct kx_worker *worker, struct kx_task *task)
{
	if (task->event_lost) {
		const struct kx_error error = {
			.status = KX_EIO, .class = KX_ERROR_FATAL, .message = "the bus takes no events any more"};

		kx_worker_fail(worker, &error);
	} else {
		acknowledge(worker, task->partition, task->offset, task->epoch);
	}
	kx_task_free(task);
}

static void tell_one(struct kx_worker *worker, struct kx_task *task)
{
	struct kx_error error = {0};
	kx_status status;

	if (task->event_sent) {
		close_task(worker, task);
		return;
	}
	status = kx_task_publish_event(task, &error);
	if (status == KX_OK)
		return; /* its delivery report brings it back */
	if (status == KX_EAGAIN) {
		kx_task_list_push(&worker->blocked, task);
		return;
	}
	kx_worker_fail(worker, &error);
	kx_task_free(task);
}

/* Tasks whose results are delivered get their event; those whose event is delivered are acknowledged. */
static void tell_settled(struct kx_worker *worker)
{
	struct kx_task_list settled;
	struct kx_task *task;

	kx_task_list_init(&settled);
	kx_task_list_take(&settled, &worker->blocked);
	pthread_mutex_lock(&worker->lock);
	kx_task_list_take(&settled, &worker->settled);
	pthread_mutex_unlock(&worker->lock);
	while ((task = kx_task_list_pop(&settled)) != NULL)
		tell_one(worker, task);
}

/* ---- the thread ---- */

static void *worker_main(void *arg)
{
	struct kx_worker *worker = arg;

	while (!kx_stop_asked(&worker->stop)) {
		struct kx_bus_message message = {0};
		struct kx_error error = {0};
		kx_status status;

		tell_settled(worker);
		submit_backlog(worker);
		status = kx_bus_receive(worker->consumer, RECEIVE_MS, &message, &error);
		if (status == KX_OK) {
			take_message(worker, &message);
			kx_bus_message_done(&message);
		} else if (status != KX_EAGAIN) {
			kx_worker_fail(worker, &error);
		}
	}
	return NULL;
}

/* ---- life ---- */

static struct kx_worker *worker_new(const struct kx_worker_options *options, struct kx_error *error)
{
	struct kx_worker *worker = calloc(1, sizeof(*worker));

	if (!worker) {
		kx_error_nomem(error);
		return NULL;
	}
	if (kx_stop_init(&worker->stop, error) != KX_OK) {
		free(worker);
		return NULL;
	}
	if (pthread_mutex_init(&worker->lock, NULL) != 0) {
		kx_stop_done(&worker->stop);
		free(worker);
		kx_error_nomem(error);
		return NULL;
	}
	atomic_init(&worker->refs, 1);
	worker->bus = options->bus;
	worker->pipeline = options->pipeline;
	worker->failed = options->failed;
	worker->failed_ctx = options->failed_ctx;
	worker->in_flight_max = options->jobs_in_flight ? options->jobs_in_flight :
							  2 * kx_pipeline_decoders(options->pipeline);
	kx_topics_init(&worker->topics, options->ns);
	kx_task_list_init(&worker->backlog);
	kx_task_list_init(&worker->blocked);
	kx_task_list_init(&worker->settled);
	return worker;
}

static kx_status subscribe(struct kx_worker *worker, const char *ns, struct kx_error *error)
{
	struct kx_bus_subscription subscription = {
		.topic = worker->topics.name[KX_TOPIC_JOBS],
		.revoked = on_revoked,
		.ctx = worker,
		.in_flight_bytes_max = BACKLOG_BYTES,
	};

	worker->group = kx_strf("%s.workers", ns);
	if (!worker->group)
		return kx_error_nomem(error);
	subscription.group = worker->group;
	return kx_bus_subscribe(worker->bus, &subscription, &worker->consumer, error);
}

kx_status kx_worker_start(const struct kx_worker_options *options, struct kx_worker **ret, struct kx_error *error)
{
	struct kx_worker *worker = worker_new(options, error);
	kx_status status;

	if (!worker)
		return KX_ENOMEM;
	status = subscribe(worker, options->ns, error);
	if (status == KX_OK)
		status = kx_thread_start(&worker->thread, "kx-worker", worker_main, worker, error);
	if (status != KX_OK) {
		kx_bus_consumer_close(worker->consumer);
		worker_unref(worker);
		return status;
	}
	*ret = worker;
	return KX_OK;
}

static void free_list(struct kx_task_list *list)
{
	struct kx_task *task;

	while ((task = kx_task_list_pop(list)) != NULL)
		kx_task_free(task);
}

/* From here on delivery reports only free tasks. */
static void detach(struct kx_worker *worker)
{
	struct kx_bus_consumer *consumer;

	pthread_mutex_lock(&worker->lock);
	consumer = worker->consumer;
	worker->consumer = NULL;
	worker->detached = true;
	pthread_mutex_unlock(&worker->lock);
	kx_bus_consumer_close(consumer);
}

void kx_worker_stop(struct kx_worker *worker)
{
	if (!worker)
		return;
	kx_stop_ask(&worker->stop);
	kx_worker_wake(worker);
	pthread_join(worker->thread, NULL);
	kx_pipeline_cancel(worker->pipeline, worker);
	detach(worker);
	free_list(&worker->settled);
	free_list(&worker->blocked);
	free_list(&worker->backlog);
	worker_unref(worker);
}

kx_status kx_worker_health(struct kx_worker *worker, struct kx_error *error)
{
	kx_status status;

	pthread_mutex_lock(&worker->lock);
	status = worker->health.status;
	if (status != KX_OK && error)
		*error = worker->health;
	pthread_mutex_unlock(&worker->lock);
	return status;
}
