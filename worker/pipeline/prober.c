#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/str.h"
#include "common/wire/ring.h"
#include "worker/pipeline/frames.h"
#include "worker/pipeline/internal.h"
#include "worker/pipeline/pipeline.h"
#include "worker/pipeline/verdict.h"

#define PROBE_WALL_MS 30000u
#define PROBE_NETWORK_WALL_MS 600000u /* where the bytes come over one; their stream has closer limits of its own */
#define PROBE_CPU_MS 20000u
#define INSPECT_WALL_MS 600000u /* it reads the whole file */
#define PROBE_MEMORY_BYTES (512ull << 20)
#define FRAMES_WALL_MS 3600000u
#define FRAMES_MEMORY_BYTES (2048ull << 20)
#define FRAMES_RING_SLOTS 8u
#define FRAMES_RING_SLOTS_MIN 2u /* of large frames */
#define FRAMES_RING_BYTES (64u << 20)
#define LOOK_MS 100 /* for whether it was cancelled */
/* From a child's exit to its last message, which one that ended well surely sent, and from a kill to the exit. Long, for a
 * crowded machine may let a thread or the host wait for seconds, and then a good file must not be called bad. */
#define GRACE_MS 30000u

struct kx_prober {
	pthread_mutex_t lock; /* held for a whole probe */
	kx_failure_visit *watch;
	void *watch_ctx;
	atomic_bool cancelled;
	struct kx_channel channel;
};

/* What is known of a probe, or of a reading of frames, under way. */
struct probe {
	struct kx_decode_request request;
	bool opened, ended, exited, wall_killed, cancelled;
	struct kx_probe_info info;
	struct kx_probe_detail detail;
	struct kx_host_exit exit;
	uint64_t deadline_us;
	enum kx_reason reason;
	kx_status status; /* of what was found */
	struct kx_ring *ring; /* of a reading, as what follows */
	kx_frames_visit *visit;
	void *ctx;
	bool discard; /* samples are given back unseen */
};

kx_status kx_prober_new(const char *program, const char *run_dir, struct kx_prober **ret, struct kx_error *error)
{
	struct kx_prober *prober = calloc(1, sizeof(*prober));
	kx_status status;

	if (!prober)
		return kx_error_nomem(error);
	status = kx_channel_open(&prober->channel, program, run_dir, NULL, error);
	if (status == KX_OK && pthread_mutex_init(&prober->lock, NULL) != 0) {
		kx_channel_close(&prober->channel);
		status = kx_error_nomem(error);
	}
	if (status != KX_OK) {
		free(prober);
		return status;
	}
	*ret = prober;
	return KX_OK;
}

void kx_prober_free(struct kx_prober *prober)
{
	if (!prober)
		return;
	kx_channel_close(&prober->channel);
	pthread_mutex_destroy(&prober->lock);
	free(prober);
}

kx_status kx_prober_open_beside(struct kx_prober *prober, struct kx_channel *channel, const char *program,
				const char *run_dir, struct kx_error *error)
{
	kx_status status;

	pthread_mutex_lock(&prober->lock);
	status = kx_channel_open(channel, program, run_dir, &prober->channel.host, error);
	pthread_mutex_unlock(&prober->lock);
	return status;
}

void kx_prober_cancel(struct kx_prober *prober)
{
	atomic_store(&prober->cancelled, true);
}

static kx_status fail(struct probe *probe, enum kx_reason reason, bool retriable, const char *message,
		      struct kx_error *error)
{
	probe->ended = true;
	probe->reason = reason;
	probe->status = kx_error_set(error, reason == KX_REASON_READ_FAILED ? KX_EIO : KX_ECORRUPT,
				     retriable ? KX_ERROR_RETRY : KX_ERROR_POISON, "%s", message);
	return probe->status;
}

static void on_frame(struct probe *probe, const struct kx_sample *sample, struct kx_error *error)
{
	if (probe->discard && sample->slot < kx_ring_slots(probe->ring)) {
		kx_ring_release(probe->ring, sample->slot);
		return;
	}
	if (!probe->visit || sample->slot >= kx_ring_slots(probe->ring)) {
		fail(probe, KX_REASON_CRASHED, true, "the decoder sent what nobody asked for", error);
		probe->deadline_us = 0; /* it must not wait for slots that nobody gives back */
		return;
	}
	probe->status = probe->visit(probe->ctx, sample, kx_ring_slot(probe->ring, sample->slot), error);
	kx_ring_release(probe->ring, sample->slot);
	if (probe->status != KX_OK) {
		probe->ended = true;
		probe->reason = KX_REASON_INTERNAL;
		probe->deadline_us = 0; /* the child is not waited for */
	}
}

static void on_event(struct probe *probe, struct kx_decode_event *event, struct kx_error *error)
{
	if (event->ticket != probe->request.ticket || probe->ended)
		return;
	if (event->kind == KX_DECODE_OPENED && !probe->opened) {
		probe->opened = kx_probe_info_copy(&event->opened, &probe->info) == KX_OK;
	} else if (event->kind == KX_DECODE_DETAIL) {
		kx_probe_detail_done(&probe->detail);
		probe->detail = event->detail;
		event->detail = (struct kx_probe_detail){0};
	} else if (event->kind == KX_DECODE_FRAME || (event->kind == KX_DECODE_PATCH && probe->discard)) {
		on_frame(probe, &event->sample, error);
	} else if (event->kind == KX_DECODE_END) {
		if (event->end.reason != KX_REASON_NONE)
			fail(probe, event->end.reason, event->end.retriable, event->end.message, error);
		else if (!probe->opened)
			fail(probe, KX_REASON_INTERNAL, true, "the prober ended before it opened its file", error);
		probe->ended = true;
	}
}

static void on_exits(struct kx_prober *prober, struct probe *probe, struct kx_error *error)
{
	struct kx_host_exit exit;
	kx_status status;

	while ((status = kx_host_recv(&prober->channel.host, &exit)) == KX_OK) {
		if (exit.header.ticket != probe->request.ticket)
			continue;
		probe->exited = true;
		probe->exit = exit;
		if (!probe->ended)
			probe->deadline_us = kx_clock_mono_us() + (exit.wait_status == 0 ? GRACE_MS * 1000u : 50000u);
	}
	if (status != KX_EIO)
		return;
	kx_host_stop(&prober->channel.host);
	probe->exited = true;
	if (!probe->ended)
		fail(probe, KX_REASON_CRASHED, true, "the decoder host died", error);
}

/* The deadline has passed. */
static void on_late(struct kx_prober *prober, struct probe *probe, struct kx_error *error)
{
	struct kx_verdict verdict;

	if (probe->exited) {
		kx_verdict_of(&probe->exit, &probe->request, probe->wall_killed, &verdict);
		fail(probe, verdict.reason, verdict.retriable, verdict.message, error);
	} else if (probe->wall_killed || kx_host_kill(&prober->channel.host, probe->request.ticket) != KX_OK) {
		kx_host_stop(&prober->channel.host); /* it does not do as it is told */
		probe->exited = true;
		fail(probe, KX_REASON_WALL_LIMIT, true, "the decoder host hangs", error);
	} else {
		probe->wall_killed = true;
		probe->deadline_us = kx_clock_mono_us() + GRACE_MS * 1000u;
	}
}

/* Its child goes as one whose time is over, and nobody looks at what it still sends. */
static void look_for_cancel(struct kx_prober *prober, struct probe *probe, struct kx_error *error)
{
	if (probe->cancelled || !atomic_load(&prober->cancelled))
		return;
	probe->cancelled = true;
	probe->deadline_us = 0;
	if (probe->ended)
		return;
	probe->ended = true;
	probe->reason = KX_REASON_INTERNAL;
	probe->status = kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, "stopping");
}

static int wait_ms(const struct probe *probe, uint64_t now_us)
{
	uint64_t left_ms = (probe->deadline_us - now_us) / 1000u + 1;

	return left_ms < LOOK_MS ? (int)left_ms : LOOK_MS;
}

static void run(struct kx_prober *prober, struct probe *probe, struct kx_error *error)
{
	probe->deadline_us = kx_clock_mono_us() + probe->request.wall_limit_ms * 1000u;
	while (!probe->ended || !probe->exited) {
		struct kx_decode_event *event = NULL;
		struct kx_wire_peer peer;
		uint64_t now_us = kx_clock_mono_us();
		kx_status status;

		look_for_cancel(prober, probe, error);
		if (now_us >= probe->deadline_us) {
			on_late(prober, probe, error);
			continue;
		}
		status = kx_channel_recv(&prober->channel, wait_ms(probe, now_us), prober->channel.host.fd, &peer, &event,
					 NULL);
		if (status == KX_OK)
			on_event(probe, event, error);
		else if (status == KX_ECANCELED)
			on_exits(prober, probe, error);
		kx_decode_event_free(event);
	}
}

static kx_status begin(struct kx_prober *prober, int fd, const char *name, struct probe *probe, struct kx_error *error)
{
	struct kx_channel *channel = &prober->channel;
	int fds[KX_HOST_FDS_MAX] = {fd};
	size_t fd_count = 1;
	kx_status status = KX_OK;

	if (atomic_load(&prober->cancelled))
		return kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, ": stopping");
	if (probe->ring) {
		fds[fd_count++] = kx_ring_memory_fd(probe->ring);
		fds[fd_count++] = kx_ring_wake_fd(probe->ring);
	}
	probe->request.endpoint = (char *)kx_channel_endpoint(channel);
	probe->request.name = (char *)name;
	if (!channel->host.ready)
		status = kx_channel_start_host(channel, error);
	if (status == KX_OK)
		status = kx_channel_ticket(&probe->request.ticket, error);
	if (status == KX_OK)
		status = kx_host_run(&channel->host, &probe->request, fds, fd_count, error);
	if (status == KX_EIO)
		kx_host_stop(&channel->host);
	return status;
}

/* One child from its start to its exit. */
static kx_status talk(struct kx_prober *prober, int fd, const char *name, struct probe *probe,
		      struct kx_probe_info *ret_info, enum kx_reason *ret_reason, struct kx_error *error)
{
	kx_status status;

	pthread_mutex_lock(&prober->lock);
	status = begin(prober, fd, name, probe, error);
	if (status == KX_OK)
		run(prober, probe, error);
	pthread_mutex_unlock(&prober->lock);
	if (status != KX_OK) {
		*ret_reason = KX_REASON_INTERNAL;
		return kx_error_prefix(error, status, "%s", name);
	}
	if (probe->status != KX_OK) {
		kx_probe_info_done(&probe->info);
		*ret_reason = probe->reason;
		return probe->status;
	}
	if (ret_info)
		*ret_info = probe->info;
	else
		kx_probe_info_done(&probe->info);
	return KX_OK;
}

void kx_prober_watch(struct kx_prober *prober, kx_failure_visit *visit, void *ctx)
{
	prober->watch = visit;
	prober->watch_ctx = ctx;
}

static void tell_watch(struct kx_prober *prober, int fd, const char *name, const struct probe *probe,
		       const struct kx_error *error)
{
	struct kx_decode_request request = probe->request;
	char words[KX_HOST_WORDS_MAX + 1];
	const struct kx_failure failure = {
		.name = name,
		.fd = fd,
		.request = &request,
		.reason = probe->reason,
		.retriable = error->class == KX_ERROR_RETRY,
		.attempt = 1,
		.message = error->message,
		.words = words,
	};

	request.endpoint = request.name = NULL;
	snprintf(words, sizeof(words), "%.*s", (int)probe->exit.words_len, probe->exit.words);
	prober->watch(prober->watch_ctx, &failure);
}

kx_status kx_prober_probe(struct kx_prober *prober, int fd, const char *name, struct kx_probe_info *ret_info,
			  enum kx_reason *ret_reason, struct kx_error *error)
{
	struct probe probe = {.reason = KX_REASON_NONE, .status = KX_OK};
	struct kx_error local = {0};
	kx_status status;

	probe.request = (struct kx_decode_request){
		.purpose = KX_DECODE_PROBE,
		.wall_limit_ms = kx_fs_is_socket(fd) ? PROBE_NETWORK_WALL_MS : PROBE_WALL_MS,
		.cpu_limit_ms = PROBE_CPU_MS,
		.memory_limit_bytes = PROBE_MEMORY_BYTES,
	};
	status = talk(prober, fd, name, &probe, ret_info, ret_reason, error ? error : &local);
	if (status != KX_OK && probe.status != KX_OK && !probe.cancelled && prober->watch)
		tell_watch(prober, fd, name, &probe, error ? error : &local);
	kx_probe_detail_done(&probe.detail); /* which nobody asked for */
	return status;
}

kx_status kx_prober_inspect(struct kx_prober *prober, int fd, const char *name, struct kx_probe_info *ret_info,
			    struct kx_probe_detail *ret_detail, enum kx_reason *ret_reason, struct kx_error *error)
{
	struct probe probe = {.reason = KX_REASON_NONE, .status = KX_OK};
	kx_status status;

	probe.request = (struct kx_decode_request){
		.purpose = KX_DECODE_INSPECT,
		.wall_limit_ms = INSPECT_WALL_MS,
		.cpu_limit_ms = INSPECT_WALL_MS,
		.memory_limit_bytes = PROBE_MEMORY_BYTES,
	};
	status = talk(prober, fd, name, &probe, ret_info, ret_reason, error);
	if (status == KX_OK)
		*ret_detail = probe.detail;
	else
		kx_probe_detail_done(&probe.detail);
	return status;
}

static bool wants_ring(const struct kx_decode_request *request)
{
	return request->purpose == KX_DECODE_SAMPLE;
}

kx_status kx_prober_run(struct kx_prober *prober, int fd, const char *name, const struct kx_decode_request *request,
			enum kx_reason *ret_reason, char **ret_message, char **ret_words, struct kx_error *error)
{
	struct probe probe = {.reason = KX_REASON_NONE, .status = KX_OK, .request = *request, .discard = true};
	struct kx_error found = {0};
	kx_status status = KX_OK;

	probe.request.ring_slots = FRAMES_RING_SLOTS;
	if (wants_ring(request))
		status = kx_ring_new(FRAMES_RING_SLOTS, request->slot_bytes, &probe.ring, error);
	if (status != KX_OK)
		return status;
	if (probe.request.wall_limit_ms == 0)
		probe.request.wall_limit_ms = FRAMES_WALL_MS;
	status = talk(prober, fd, name, &probe, NULL, ret_reason, &found);
	kx_ring_free(probe.ring);
	if (status != KX_OK && probe.status == KX_OK)
		return kx_error_set(error, found.status, found.class, "%s", found.message);
	*ret_reason = probe.reason;
	*ret_message = kx_strdup(found.message);
	if (ret_words)
		*ret_words = kx_strndup(probe.exit.words, probe.exit.words_len);
	if (*ret_message && (!ret_words || *ret_words))
		return KX_OK;
	free(*ret_message);
	return kx_error_nomem(error);
}

kx_status kx_frames_read(struct kx_prober *prober, int fd, const char *name, const struct kx_frames_request *request,
			 kx_frames_visit *visit, void *ctx, struct kx_probe_info *ret_info, enum kx_reason *ret_reason,
			 struct kx_error *error)
{
	struct probe probe = {.reason = KX_REASON_NONE, .status = KX_OK, .visit = visit, .ctx = ctx};
	uint64_t frame_bytes = (uint64_t)request->width * request->height * 3;
	uint32_t slots = frame_bytes > FRAMES_RING_BYTES / FRAMES_RING_SLOTS ? FRAMES_RING_SLOTS_MIN : FRAMES_RING_SLOTS;
	uint64_t wall_ms = request->wall_limit_ms != 0 ? request->wall_limit_ms : FRAMES_WALL_MS;
	kx_status status;

	probe.request = (struct kx_decode_request){
		.purpose = KX_DECODE_SAMPLE,
		.tracks = KX_TRACK_VISUAL,
		.fps = request->fps,
		.decode_mode = request->mode != 0 ? request->mode : KX_DECODE_EXACT,
		.decode_tolerance_us = request->tolerance_us,
		.start_us = request->start_us,
		.end_us = request->end_us,
		.width = request->width,
		.height = request->height,
		.ring_slots = slots,
		.slot_bytes = request->width * request->height * 3,
		.wall_limit_ms = wall_ms,
		.cpu_limit_ms = wall_ms,
		.memory_limit_bytes = FRAMES_MEMORY_BYTES,
	};
	status = kx_ring_new(slots, probe.request.slot_bytes, &probe.ring, error);
	if (status != KX_OK) {
		*ret_reason = KX_REASON_INTERNAL;
		return status;
	}
	status = talk(prober, fd, name, &probe, ret_info, ret_reason, error);
	kx_ring_free(probe.ring);
	kx_probe_detail_done(&probe.detail);
	return status;
}
