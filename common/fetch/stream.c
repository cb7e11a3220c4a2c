/* A stream's thread: between the reader's questions and the network. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/fetch/fetch.h"
#include "common/fetch/stream.h"
#include "common/fetch/streams.h"
#include "common/fetch/transfer.h"

#define POLL_MS 1000
#define STOP_LOOK_MS 100
/* What a reader may wait in all. */
#define WAIT_BASE_US 60000000u
#define WAIT_BYTES_S ((uint64_t)64 << 10)

struct kx_fetch_stream {
	struct kx_fetch *fetch;
	struct kx_fetch_stream *prev, *next; /* in fetch->streams; fetch->lock */
	atomic_uint refs;        /* the handle's and the thread's */
	atomic_bool ending;
	atomic_ullong waited_us; /* in questions that were answered */
	atomic_ullong asked_us;  /* when the question came that is not answered; 0: none */

	pthread_mutex_t lock;    /* guards what follows up to the thread's own */
	pthread_cond_t changed;
	bool settled;
	struct kx_fetch_info info;
	struct kx_trouble trouble;

	int fd; /* the thread's, as all below */
	struct kx_transfer transfer;
	bool pending;
	bool is_settled;
	struct kx_stream_ask ask;
	uint64_t read_end; /* of the last reading */
	uint8_t chunk[KX_STREAM_CHUNK];
};

static void unref(struct kx_fetch_stream *stream)
{
	if (atomic_fetch_sub(&stream->refs, 1) > 1)
		return;
	pthread_cond_destroy(&stream->changed);
	pthread_mutex_destroy(&stream->lock);
	free(stream);
}

/* ---- the reader ---- */

/* False when the reader is gone, or breaks the protocol. */
static bool hear(struct kx_fetch_stream *stream)
{
	struct kx_stream_ask ask;
	if (atomic_load(&stream->ending))
		return false;
	ssize_t got = recv(stream->fd, &ask, sizeof(ask), MSG_DONTWAIT | (stream->pending ? MSG_PEEK : 0));
	if (got < 0)
		return errno == EAGAIN || errno == EINTR;
	if (stream->pending || got != (ssize_t)sizeof(ask) || ask.len > KX_STREAM_CHUNK ||
	    (ask.verb != KX_STREAM_SIZE && (ask.verb != KX_STREAM_READ || ask.len == 0)))
		return false;
	stream->ask = ask;
	stream->pending = true;
	atomic_store(&stream->asked_us, kx_clock_mono_us());
	return true;
}

/* One question has one answer, for which the socket has room: a reader for which it has none asks without listening. */
static bool tell(struct kx_fetch_stream *stream, const struct kx_stream_answer *answer, const void *bytes)
{
	struct iovec parts[] = {
		{.iov_base = (void *)(uintptr_t)answer, .iov_len = sizeof(*answer)},
		{.iov_base = (void *)(uintptr_t)bytes, .iov_len = answer->len},
	};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = answer->len > 0 ? 2 : 1};
	uint64_t asked_us = atomic_exchange(&stream->asked_us, 0);
	atomic_fetch_add(&stream->waited_us, kx_clock_mono_us() - asked_us);
	stream->pending = false;
	return sendmsg(stream->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;
}

static bool tell_trouble(struct kx_fetch_stream *stream)
{
	const struct kx_trouble *trouble = &stream->transfer.trouble;
	const struct kx_stream_answer answer = {
		.status = trouble->status,
		.reason = trouble->reason,
		.retriable = trouble->retriable,
		.len = (uint32_t)strlen(trouble->message),
	};
	(void)tell(stream, &answer, trouble->message);
	return false;
}

/* False when the stream is over. */
static bool answer(struct kx_fetch_stream *stream)
{
	struct kx_transfer *transfer = &stream->transfer;
	struct kx_stream_answer good = {
		.status = KX_OK, .reason = KX_REASON_NONE, .size = transfer->info.size};
	if (!stream->pending)
		return true;
	if (transfer->trouble.status != KX_OK)
		return tell_trouble(stream);
	if (!transfer->known)
		return true;
	if (stream->ask.verb == KX_STREAM_READ && stream->ask.offset < transfer->info.size) {
		good.len = (uint32_t)kx_transfer_read(transfer, stream->ask.offset, stream->chunk, stream->ask.len);
		if (good.len == 0)
			return true;
		stream->read_end = stream->ask.offset + good.len;
	}
	return tell(stream, &good, stream->chunk);
}

/* ---- the thread ---- */

uint64_t kx_fetch_stream_waited_us(struct kx_fetch_stream *stream)
{
	uint64_t waited_us = atomic_load(&stream->waited_us);
	uint64_t asked_us = atomic_load(&stream->asked_us);
	uint64_t now_us = kx_clock_mono_us();
	return asked_us > 0 && now_us > asked_us ? waited_us + (now_us - asked_us) : waited_us;
}

static void check_patience(struct kx_fetch_stream *stream)
{
	struct kx_transfer *transfer = &stream->transfer;
	uint64_t limit_us = WAIT_BASE_US + KX_TIMEOUTS_MAX * transfer->fetch->options.timeout_ms * 1000 +
			    transfer->info.size / WAIT_BYTES_S * 1000000u;
	struct kx_trouble trouble = {0};
	if (!stream->pending || kx_fetch_stream_waited_us(stream) <= limit_us)
		return;
	kx_trouble_say(&trouble, KX_ETIMEDOUT, KX_REASON_READ_FAILED, true,
		       "%.300s: it comes slower than 64 KiB a second", transfer->target.name);
	kx_transfer_fail(transfer, &trouble);
}

/* Tells those who wait for it what is read, or why it is not. */
static void settle(struct kx_fetch_stream *stream)
{
	const struct kx_transfer *transfer = &stream->transfer;
	if (stream->is_settled || (!transfer->known && transfer->trouble.status == KX_OK))
		return;
	stream->is_settled = true;
	pthread_mutex_lock(&stream->lock);
	stream->settled = true;
	stream->info = transfer->info;
	stream->trouble = transfer->trouble;
	pthread_cond_broadcast(&stream->changed);
	pthread_mutex_unlock(&stream->lock);
}

static void go_on(struct kx_fetch_stream *stream)
{
	uint64_t now_us = kx_clock_mono_us();
	if (stream->pending && stream->ask.verb == KX_STREAM_READ)
		kx_transfer_want(&stream->transfer, stream->ask.offset, now_us);
	else
		kx_transfer_idle(&stream->transfer, stream->read_end, now_us);
}

/* Until the reader asks, the network has something, or a retry is due. */
static void rest(struct kx_fetch_stream *stream)
{
	struct curl_waitfd reader = {.fd = stream->fd, .events = stream->pending ? 0 : CURL_WAIT_POLLIN};
	uint64_t now_us = kx_clock_mono_us();
	uint64_t due_us = stream->transfer.tries.not_before_us;
	int timeout_ms = POLL_MS;
	if (!stream->transfer.running && due_us > now_us && due_us - now_us < POLL_MS * 1000u)
		timeout_ms = (int)((due_us - now_us) / 1000) + 1;
	curl_multi_poll(stream->transfer.multi, &reader, 1, timeout_ms, NULL);
}

static void leave(struct kx_fetch_stream *stream)
{
	struct kx_fetch *fetch = stream->fetch;
	const struct kx_trouble over = {
		.status = KX_ECANCELED, .reason = KX_REASON_INTERNAL, .retriable = true, .message = "stopped"};
	kx_transfer_fail(&stream->transfer, &over);
	settle(stream);
	close(stream->fd);
	pthread_mutex_lock(&fetch->lock); /* who wakes streams up uses the multi handle until then */
	if (stream->prev)
		stream->prev->next = stream->next;
	else
		fetch->streams = stream->next;
	if (stream->next)
		stream->next->prev = stream->prev;
	pthread_mutex_unlock(&fetch->lock);
	kx_transfer_done(&stream->transfer);
	unref(stream);
	pthread_mutex_lock(&fetch->lock);
	if (--fetch->live == 0)
		pthread_cond_broadcast(&fetch->idle);
	pthread_mutex_unlock(&fetch->lock);
}

static void *stream_main(void *arg)
{
	struct kx_fetch_stream *stream = arg;
	while (hear(stream)) {
		kx_transfer_drive(&stream->transfer);
		check_patience(stream);
		settle(stream);
		if (!answer(stream))
			break;
		go_on(stream);
		rest(stream);
	}
	leave(stream);
	return NULL;
}

/* ---- for everybody ---- */

static void link_in(struct kx_fetch *fetch, struct kx_fetch_stream *stream)
{
	pthread_mutex_lock(&fetch->lock);
	stream->next = fetch->streams;
	if (stream->next)
		stream->next->prev = stream;
	fetch->streams = stream;
	fetch->live++;
	pthread_mutex_unlock(&fetch->lock);
}

static kx_status start(struct kx_fetch *fetch, struct kx_fetch_stream *stream, struct kx_error *error)
{
	pthread_t thread;
	link_in(fetch, stream);
	atomic_fetch_add(&stream->refs, 1); /* the thread's */
	kx_status status = kx_thread_start(&thread, "kx-fetch", stream_main, stream, error);
	if (status == KX_OK)
		pthread_detach(thread);
	else
		leave(stream);
	return status;
}

/* Both ends, or none. */
static kx_status make_ends(struct kx_fetch_stream *stream, int *ret_far, struct kx_error *error)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
		return kx_error_from_errno(error, errno, "socket for reading %.200s", stream->transfer.target.name);
	stream->fd = pair[0];
	*ret_far = pair[1];
	return KX_OK;
}

static struct kx_fetch_stream *new_stream(struct kx_fetch *fetch)
{
	struct kx_fetch_stream *stream = calloc(1, sizeof(*stream));
	if (!stream || kx_cond_init(&stream->changed) != KX_OK) {
		free(stream);
		return NULL;
	}
	pthread_mutex_init(&stream->lock, NULL);
	atomic_init(&stream->refs, 1);
	stream->fetch = fetch;
	return stream;
}

kx_status kx_fetch_open(struct kx_fetch *fetch, const char *url, const uint8_t *expected,
			struct kx_fetch_stream **ret, int *ret_fd, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_close) int far = -1;
	KX_CLEANUP(kx_fetch_stream_cleanup) struct kx_fetch_stream *stream = new_stream(fetch);
	if (!stream)
		return kx_error_nomem(error);
	kx_status status = kx_transfer_open(&stream->transfer, fetch, url, expected, error);
	if (status)
		return status;
	status = make_ends(stream, &far, error);
	if (status) {
		kx_transfer_done(&stream->transfer);
		return status;
	}
	status = start(fetch, stream, error);
	if (status)
		return status;
	*ret = KX_STEAL(stream);
	*ret_fd = kx_steal_fd(&far);
	return KX_OK;
}

void kx_fetch_stream_free(struct kx_fetch_stream *stream)
{
	if (stream)
		unref(stream);
}

void kx_fetch_stream_cleanup(struct kx_fetch_stream **stream)
{
	kx_fetch_stream_free(*stream);
	*stream = NULL;
}

kx_status kx_fetch_stream_wait(struct kx_fetch_stream *stream, struct kx_fetch_info *ret_info,
			       enum kx_reason *ret_reason, struct kx_error *error)
{
	const struct kx_stop *stop = stream->fetch->options.stop;
	struct kx_trouble trouble = {0};
	pthread_mutex_lock(&stream->lock);
	while (!stream->settled && !(stop && kx_stop_asked(stop))) {
		struct timespec deadline = kx_clock_deadline(STOP_LOOK_MS);
		pthread_cond_timedwait(&stream->changed, &stream->lock, &deadline);
	}
	if (stream->settled) {
		trouble = stream->trouble;
		*ret_info = stream->info;
	} else {
		kx_trouble_say(&trouble, KX_ECANCELED, KX_REASON_INTERNAL, true, "stopped");
	}
	pthread_mutex_unlock(&stream->lock);
	return trouble.status ? kx_trouble_pass(&trouble, ret_reason, error) : KX_OK;
}

void kx_streams_end(struct kx_fetch *fetch)
{
	pthread_mutex_lock(&fetch->lock);
	for (struct kx_fetch_stream *stream = fetch->streams; stream; stream = stream->next) {
		atomic_store(&stream->ending, true);
		curl_multi_wakeup(stream->transfer.multi);
	}
	while (fetch->live > 0)
		pthread_cond_wait(&fetch->idle, &fetch->lock);
	pthread_mutex_unlock(&fetch->lock);
}
