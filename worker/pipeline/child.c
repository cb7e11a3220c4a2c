#include "worker/pipeline/child.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/fault.h"
#include "common/wire/ring.h"
#include "common/wire/wire.h"
#include "worker/media/media.h"
#include "worker/pipeline/confine.h"

#define EVENT_MAX (64u << 10)
#define QUEUE_MAX 256
#define CONNECT_MS 60000
#define SLOT_WAIT_MS 60000 /* only how often the wait is begun anew: what ends it is the limits or a kill */

struct child {
	const struct kx_decode_request *request;
	struct kx_wire *wire;
	struct kx_wire_socket *socket;
	struct kx_ring *ring;
	struct kx_buf buf;
	uint32_t slot; /* acquired and not sent */
};

static kx_status send_event(struct child *child, struct kx_decode_event *event)
{
	kx_status status;

	event->ticket = child->request->ticket;
	kx_buf_clear(&child->buf);
	status = kx_decode_event_pack(event, &child->buf);
	if (status == KX_OK)
		status = kx_wire_send(child->socket, NULL, child->buf.data, child->buf.len, -1, NULL);
	return status;
}

static kx_status on_opened(void *ctx, const struct kx_probe_info *info)
{
	struct kx_decode_event event = {.kind = KX_DECODE_OPENED, .opened = *info};

	return send_event(ctx, &event);
}

static kx_status on_acquire(void *ctx, void **ret_memory)
{
	struct child *child = ctx;
	kx_status status = kx_ring_acquire(child->ring, 0, &child->slot, NULL);

	if (status == KX_ETIMEDOUT) {
		kx_confine_pause();
		while (status == KX_ETIMEDOUT)
			status = kx_ring_acquire(child->ring, SLOT_WAIT_MS, &child->slot, NULL);
		kx_confine_resume();
	}
	if (status == KX_OK)
		*ret_memory = kx_ring_slot(child->ring, child->slot);
	return status;
}

static kx_status send_sample(struct child *child, enum kx_decode_event_kind kind, const struct kx_sample *sample)
{
	struct kx_decode_event event = {.kind = kind, .sample = *sample};

	event.sample.slot = child->slot;
	return send_event(child, &event);
}

static kx_status on_frame(void *ctx, const struct kx_sample *sample)
{
	return send_sample(ctx, KX_DECODE_FRAME, sample);
}

static kx_status on_patch(void *ctx, const struct kx_sample *sample)
{
	return send_sample(ctx, KX_DECODE_PATCH, sample);
}

static kx_status send_end(struct child *child, const struct kx_decode_end *end)
{
	struct kx_decode_event event = {.kind = KX_DECODE_END, .end = *end};

	return send_event(child, &event);
}

static kx_status run_probe(struct child *child, int fd)
{
	struct kx_decode_end end = {.reason = KX_REASON_NONE};
	struct kx_probe_info info = {0};
	struct kx_error error = {0};
	kx_status status = kx_media_probe(fd, child->request->name, &info, &end.reason, &error);

	if (status == KX_OK) {
		end.reason = KX_REASON_NONE;
		status = on_opened(child, &info);
		kx_probe_info_done(&info);
		if (status != KX_OK)
			return status;
	} else {
		end.retriable = error.class == KX_ERROR_RETRY;
		end.message = error.message;
	}
	return send_end(child, &end);
}

static kx_status run_inspect(struct child *child, int fd)
{
	struct kx_decode_end end = {.reason = KX_REASON_NONE};
	struct kx_decode_event detail = {.kind = KX_DECODE_DETAIL};
	struct kx_probe_info info = {0};
	struct kx_error error = {0};
	kx_status status = kx_media_inspect(fd, child->request->name, &info, &detail.detail, &end.reason, &error);

	if (status == KX_OK) {
		end.reason = KX_REASON_NONE;
		status = on_opened(child, &info);
		if (status == KX_OK)
			status = send_event(child, &detail);
		kx_probe_info_done(&info);
		kx_probe_detail_done(&detail.detail);
		if (status != KX_OK)
			return status;
	} else {
		end.retriable = error.class == KX_ERROR_RETRY;
		end.message = error.message;
	}
	return send_end(child, &end);
}

static kx_status run_sample(struct child *child, int fd)
{
	const struct kx_media_sink sink = {
		.ctx = child,
		.opened = on_opened,
		.acquire = on_acquire,
		.frame = on_frame,
		.patch = on_patch,
	};
	struct kx_decode_end end = {.reason = KX_REASON_NONE};
	struct kx_error error = {0};
	kx_status status = kx_media_sample(fd, child->request, &sink, &end, &error);

	if (status != KX_OK && end.reason == KX_REASON_NONE) { /* ours: the sink failed */
		kx_media_end_done(&end);
		return status;
	}
	status = send_end(child, &end);
	kx_media_end_done(&end);
	return status;
}

static kx_status run_purpose(struct child *child, const int *fds)
{
	switch (child->request->purpose) {
	case KX_DECODE_PROBE:
		return run_probe(child, fds[0]);
	case KX_DECODE_INSPECT:
		return run_inspect(child, fds[0]);
	case KX_DECODE_SAMPLE:
		break;
	}
	return run_sample(child, fds[0]);
}

static kx_status child_open(struct child *child, const int *fds)
{
	const struct kx_decode_request *request = child->request;
	kx_status status = kx_wire_new(&child->wire, NULL);

	if (status == KX_OK)
		status = kx_wire_client_connected(child->wire, request->endpoint, QUEUE_MAX, CONNECT_MS, &child->socket,
						  NULL);
	if (status == KX_OK && request->purpose == KX_DECODE_SAMPLE)
		status = kx_ring_attach(fds[1], fds[2], request->ring_slots, request->slot_bytes, &child->ring, NULL);
	return status;
}

/* Waits until everything sent has gone out: the pipeline may see our exit before our last message, and then counts
 * on that message being on its way. */
static void child_close(struct child *child)
{
	if (child->socket)
		kx_wire_socket_close(child->socket, -1);
	if (child->wire)
		kx_wire_free(child->wire);
	kx_ring_free(child->ring);
	kx_buf_done(&child->buf);
}

/* What a decoder that was taken over might try; armed by tests only. It goes on if it is let, and the test fails. */
static void misbehave(void)
{
	char *const argv[] = {(char *)"true", NULL};

	if (kx_fault("child.read"))
		(void)!open("/etc/passwd", O_RDONLY | O_CLOEXEC);
	if (kx_fault("child.create"))
		(void)!open("/tmp/kinodex-was-here", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (kx_fault("child.socket"))
		(void)!socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (kx_fault("child.exec"))
		(void)!execv("/bin/true", argv);
	if (kx_fault("child.fork"))
		(void)!fork();
	if (kx_fault("child.kill"))
		(void)!kill(getppid(), SIGTERM);
	if (kx_fault("child.code"))
		(void)!mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (kx_fault("child.abort")) {
		fputs("about to abort\n", stderr);
		abort();
	}
}

enum kx_child_status kx_child_main(const struct kx_decode_request *request, const int *fds,
				   const struct kx_sandbox *sandbox, pid_t parent)
{
	struct child child = {.request = request, .buf = {.max = EVENT_MAX}};
	kx_status status = child_open(&child, fds);

	if (status == KX_OK && sandbox)
		status = kx_sandbox_enter(sandbox, parent);
	if (status != KX_OK) {
		child_close(&child);
		return status == KX_ENOMEM ? KX_CHILD_NOMEM : KX_CHILD_SETUP;
	}
	misbehave();
	status = run_purpose(&child, fds);
	child_close(&child);
	if (status == KX_OK)
		return KX_CHILD_DONE;
	return status == KX_ENOMEM ? KX_CHILD_NOMEM : KX_CHILD_LOST;
}
