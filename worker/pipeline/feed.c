/* The channel thread: begins jobs, hears what children say and how they end, keeps a host alive. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/macros.h"
#include "worker/pipeline/internal.h"

#define SLEEP_MAX_US 1000000u /* deadlines may move while we sleep */
#define HOST_READY_US 20000000u
#define BACKOFF_MIN_US 100000u
#define BACKOFF_MAX_US 5000000u
/* The timer of a child whose bytes come over a network leaves that to the stream, which has limits of its own, and to
 * the lane, which knows what was waited for. */
#define NETWORK_EXTRA_MS (7u * 24 * 3600 * 1000)

/* ---- beginning a job ---- */

static enum kx_reason reason_of_errno(int error)
{
	switch (error) {
	case ENOENT:
	case ENOTDIR:
	case ELOOP:
		return KX_REASON_NOT_FOUND;
	case EACCES:
	case EPERM:
		return KX_REASON_NO_PERMISSION;
	default:
		return KX_REASON_READ_FAILED;
	}
}

static bool reason_retriable(enum kx_reason reason)
{
	return reason == KX_REASON_READ_FAILED || reason == KX_REASON_INTERNAL;
}

/* An address is opened without waiting for its server; what goes wrong there, the child is told. */
static int open_address(struct kx_pipeline *pipeline, const struct kx_job *job, struct kx_fetch_stream **ret_stream,
			enum kx_reason *ret_reason, struct kx_error *error)
{
	int fd = -1;
	kx_status status;

	if (!pipeline->fetch)
		status = kx_error_set(error, KX_EUNSUPPORTED, KX_ERROR_POISON, "this worker reads files only");
	else
		status = kx_fetch_open(pipeline->fetch, job->source, job->content_sha256, ret_stream, &fd, error);
	*ret_reason = status == KX_EINVAL || status == KX_EUNSUPPORTED ? KX_REASON_UNSUPPORTED : KX_REASON_INTERNAL;
	return status == KX_OK ? fd : -1;
}

/* -1: *ret_reason and the error say why. O_NONBLOCK, since a name may have become a FIFO that nobody writes to. */
static int open_file(const struct kx_job *job, enum kx_reason *ret_reason, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_close) int fd = open(job->source, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0) {
		*ret_reason = reason_of_errno(errno);
		kx_error_from_errno(error, errno, "%s", job->source);
		return -1;
	}
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != job->content_bytes) {
		*ret_reason = KX_REASON_CHANGED;
		kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
			     "%s is not the file that was planned (%" PRIu64 " bytes then): index again", job->source,
			     job->content_bytes);
		return -1;
	}
	return kx_steal_fd(&fd);
}

static struct kx_lane *free_lane(struct kx_pipeline *pipeline)
{
	for (size_t i = 0; i < pipeline->lane_count; i++) {
		if (!pipeline->lanes[i].run)
			return &pipeline->lanes[i];
	}
	return NULL;
}

static struct kx_decode_request request_of(const struct kx_pipeline *pipeline, const struct kx_job *job)
{
	return (struct kx_decode_request){
		.purpose = KX_DECODE_SAMPLE,
		.tracks = job->tracks,
		.fps = job->fps,
		.decode_mode = job->decode_mode,
		.decode_tolerance_us = job->decode_tolerance_us,
		.start_us = job->start_us,
		.end_us = job->end_us,
		.width = pipeline->width,
		.height = pipeline->height,
		.ring_slots = pipeline->ring_slots,
		.slot_bytes = pipeline->slot_bytes,
		.wall_limit_ms = job->wall_limit_ms,
		.cpu_limit_ms = job->cpu_limit_ms,
		.memory_limit_bytes = job->memory_limit_bytes,
	};
}

static void occupy(struct kx_lane *lane, struct kx_run *run, uint64_t ticket)
{
	struct kx_ring *ring = lane->ring;
	bool *busy = lane->busy;

	kx_fetch_stream_free(lane->stream); /* of the job before */
	*lane = (struct kx_lane){.run = run, .ring = ring, .busy = busy, .ticket = ticket};
	lane->deadline_us = run->job->wall_limit_ms == 0 ? UINT64_MAX :
							   kx_clock_mono_us() + run->job->wall_limit_ms * 1000u;
	run->lane = lane;
	run->begun_us = kx_clock_mono_us(); /* waiting for its turn is not part of how long it took */
}

/* Lock held. On failure the lane stays free. */
static kx_status start_child(struct kx_pipeline *pipeline, struct kx_lane *lane, struct kx_run *run, int fd,
			     struct kx_fetch_stream **stream, const char *name, struct kx_error *error)
{
	struct kx_decode_request request = request_of(pipeline, run->job);
	kx_status status = kx_lane_prepare(pipeline, lane, error);
	int fds[KX_HOST_FDS_MAX] = {fd};

	if (status == KX_OK)
		status = kx_channel_ticket(&request.ticket, error);
	if (status != KX_OK)
		return status;
	occupy(lane, run, request.ticket);
	lane->limits = request;
	run->request = request;
	run->had_child = true;
	lane->stream = KX_STEAL(*stream);
	if (lane->stream && request.wall_limit_ms > 0)
		request.wall_limit_ms += NETWORK_EXTRA_MS;
	request.endpoint = (char *)kx_channel_endpoint(&pipeline->channel);
	request.name = (char *)(name ? name : "");
	fds[1] = kx_ring_memory_fd(lane->ring);
	fds[2] = kx_ring_wake_fd(lane->ring);
	status = kx_host_run(&pipeline->channel.host, &request, fds, KX_ARRAY_LEN(fds), error);
	if (status != KX_OK) {
		lane->run = NULL;
		run->lane = NULL;
		return status;
	}
	lane->alive = true;
	pipeline->running++;
	return KX_OK;
}

/* Lock held; let go while the file is opened. */
static void begin(struct kx_pipeline *pipeline, struct kx_lane *lane, struct kx_run *run)
{
	enum kx_reason reason = KX_REASON_INTERNAL;
	struct kx_error error = {0};
	KX_CLEANUP(kx_cleanup_close) int fd = -1;
	KX_CLEANUP(kx_fetch_stream_cleanup) struct kx_fetch_stream *stream = NULL;
	KX_CLEANUP(kx_cleanup_free) char *name = kx_fetch_name(run->job->source);

	pthread_mutex_unlock(&pipeline->lock);
	fd = kx_fetch_is_url(run->job->source) ? open_address(pipeline, run->job, &stream, &reason, &error)
					       : open_file(run->job, &reason, &error);
	pthread_mutex_lock(&pipeline->lock);
	if (fd < 0)
		kx_run_fail(pipeline, run, reason, reason_retriable(reason), error.message);
	else if (!run->failed && start_child(pipeline, lane, run, fd, &stream, name, &error) != KX_OK)
		kx_run_fail(pipeline, run, KX_REASON_INTERNAL, true, error.message);
	if (run->failed)
		kx_run_gone(pipeline, run);
}

static struct kx_run *pop_waiting(struct kx_pipeline *pipeline)
{
	struct kx_run *run = pipeline->waiting;

	pipeline->waiting = run->next_waiting;
	if (!pipeline->waiting)
		pipeline->waiting_tail = &pipeline->waiting;
	pipeline->waiting_count--;
	return run;
}

/* Those that were cancelled while they waited. */
static void sweep_waiting(struct kx_pipeline *pipeline)
{
	struct kx_run **at = &pipeline->waiting;

	while (*at) {
		struct kx_run *run = *at;

		if (!run->failed) {
			at = &run->next_waiting;
			continue;
		}
		*at = run->next_waiting;
		pipeline->waiting_count--;
		kx_run_gone(pipeline, run);
	}
	pipeline->waiting_tail = at;
}

static void begin_waiting(struct kx_pipeline *pipeline)
{
	struct kx_lane *lane;

	sweep_waiting(pipeline);
	while (pipeline->waiting && pipeline->channel.host.ready && pipeline->running < pipeline->decoders &&
	       (lane = free_lane(pipeline)) != NULL)
		begin(pipeline, lane, pop_waiting(pipeline));
}

/* ---- the host ---- */

static kx_status watch(struct kx_pipeline *pipeline, int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};

	return epoll_ctl(pipeline->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? KX_OK : KX_EIO;
}

/* Without a host jobs must not wait for ever: each attempt to start one that fails costs those that wait theirs. */
static void host_failed(struct kx_pipeline *pipeline, const char *why)
{
	kx_log(KX_LOG_ERROR, "%s; trying again", why);
	pthread_mutex_lock(&pipeline->lock);
	for (struct kx_run *run = pipeline->waiting; run; run = run->next_waiting)
		kx_run_fail(pipeline, run, KX_REASON_INTERNAL, true, why);
	pthread_mutex_unlock(&pipeline->lock);
	pipeline->host_backoff_us = pipeline->host_backoff_us * 2 + BACKOFF_MIN_US;
	if (pipeline->host_backoff_us > BACKOFF_MAX_US)
		pipeline->host_backoff_us = BACKOFF_MAX_US;
	pipeline->host_retry_us = kx_clock_mono_us() + pipeline->host_backoff_us;
}

static void host_died(struct kx_pipeline *pipeline)
{
	struct kx_host *host = &pipeline->channel.host;
	bool was_ready = host->ready;

	kx_host_stop(host); /* closing takes it out of the epoll set */
	if (!was_ready) {
		host_failed(pipeline, "the decoder host ended as soon as it was started");
		return;
	}
	kx_log(KX_LOG_WARN, "the decoder host died; its jobs will be tried again");
	pthread_mutex_lock(&pipeline->lock);
	for (size_t i = 0; i < pipeline->lane_count; i++)
		kx_lane_host_died(pipeline, &pipeline->lanes[i]);
	pthread_mutex_unlock(&pipeline->lock);
	pipeline->host_retry_us = kx_clock_mono_us();
}

static void start_host(struct kx_pipeline *pipeline)
{
	struct kx_host *host = &pipeline->channel.host;
	struct kx_error error = {0};

	if (kx_host_start(host, pipeline->channel.program, &error) == KX_OK && watch(pipeline, host->fd) == KX_OK) {
		pipeline->host_retry_us = kx_clock_mono_us() + HOST_READY_US; /* until then it must be ready */
		return;
	}
	kx_host_stop(host);
	host_failed(pipeline, error.message[0] ? error.message : "the decoder host can't be watched");
}

/* Returns when it wants to be called again at the latest. */
static uint64_t mind_host(struct kx_pipeline *pipeline, uint64_t now_us)
{
	struct kx_host *host = &pipeline->channel.host;

	if (host->ready)
		return UINT64_MAX;
	if (now_us >= pipeline->host_retry_us) {
		if (host->fd >= 0)
			host_died(pipeline);
		else
			start_host(pipeline);
	}
	return pipeline->host_retry_us;
}

/* ---- what comes in ---- */

static void hear_exits(struct kx_pipeline *pipeline)
{
	struct kx_host *host = &pipeline->channel.host;
	struct kx_host_exit exit;
	kx_status status;

	if (host->fd < 0)
		return;
	while ((status = kx_host_recv(host, &exit)) == KX_OK) {
		pthread_mutex_lock(&pipeline->lock);
		kx_lane_exit(pipeline, &exit);
		pthread_mutex_unlock(&pipeline->lock);
	}
	if (status == KX_EIO)
		host_died(pipeline);
	else if (host->ready)
		pipeline->host_backoff_us = 0;
}

static void hear_wakes(struct kx_pipeline *pipeline)
{
	uint64_t count;

	if (read(pipeline->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN && errno != EINTR)
		kx_log(KX_LOG_ERROR, "wake-up descriptor: %s", strerrordesc_np(errno));
}

static void hear(struct kx_pipeline *pipeline, uint64_t until_us)
{
	uint64_t now_us = kx_clock_mono_us();
	uint64_t wait_us = until_us > now_us ? until_us - now_us : 0;
	struct kx_decode_event *event = NULL;
	struct kx_wire_peer peer;
	struct kx_error error = {0};
	kx_status status;

	if (wait_us > SLEEP_MAX_US)
		wait_us = SLEEP_MAX_US;
	status = kx_channel_recv(&pipeline->channel, (int)((wait_us + 999u) / 1000u), pipeline->epoll_fd, &peer,
				 &event, &error);
	if (status == KX_OK) {
		pthread_mutex_lock(&pipeline->lock);
		kx_lane_event(pipeline, &peer, event);
		pthread_mutex_unlock(&pipeline->lock);
		kx_decode_event_free(event);
	} else if (status == KX_ECANCELED) {
		hear_wakes(pipeline);
		hear_exits(pipeline);
	} else if (status != KX_EAGAIN) {
		kx_log(KX_LOG_ERROR, "decoders' channel: %s", error.message);
	}
}

/* Lock held. */
static uint64_t tick(struct kx_pipeline *pipeline, uint64_t now_us)
{
	uint64_t until_us = UINT64_MAX;

	for (size_t i = 0; i < pipeline->lane_count; i++) {
		uint64_t lane_us = kx_lane_tick(pipeline, &pipeline->lanes[i], now_us);

		if (lane_us < until_us)
			until_us = lane_us;
	}
	begin_waiting(pipeline);
	return until_us;
}

void *kx_feed_main(void *arg)
{
	struct kx_pipeline *pipeline = arg;

	for (;;) {
		uint64_t now_us = kx_clock_mono_us();
		uint64_t host_us = mind_host(pipeline, now_us);
		uint64_t until_us;
		bool over;

		pthread_mutex_lock(&pipeline->lock);
		until_us = tick(pipeline, now_us);
		over = pipeline->stopping && pipeline->run_count == 0;
		pthread_mutex_unlock(&pipeline->lock);
		if (over)
			return NULL;
		hear(pipeline, host_us < until_us ? host_us : until_us);
	}
}
