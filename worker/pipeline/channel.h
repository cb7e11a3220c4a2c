/* The near end of decoding: the socket on which children report, and the host that makes them.
 * Layer: worker/pipeline, private. Used by one thread at a time. */
#ifndef KX_WORKER_PIPELINE_CHANNEL_H
#define KX_WORKER_PIPELINE_CHANNEL_H

#include "common/record/media.h"
#include "common/wire/wire.h"
#include "worker/pipeline/host_client.h"

struct kx_channel {
	struct kx_wire *wire;
	struct kx_wire_socket *socket;
	struct kx_host host;
	char *program;
	char *path; /* of the socket file */
};

/* Embedded. Makes run_dir if need be, binds, starts the host, or joins `beside` where it is not NULL, and waits until it
 * is ready. Another host that it needs later is always its own. */
kx_status kx_channel_open(struct kx_channel *channel, const char *program, const char *run_dir, struct kx_host *beside,
			  struct kx_error *error) KX_MUST_CHECK;
void kx_channel_close(struct kx_channel *channel); /* zeroed memory is nothing */
const char *kx_channel_endpoint(const struct kx_channel *channel);

/* Another host instead of the one that died. One that somebody killed while it started is started again; one that can't
 * start fails each time: KX_EIO, to be tried again by the caller. */
kx_status kx_channel_start_host(struct kx_channel *channel, struct kx_error *error) KX_MUST_CHECK;

/* A number that another child cannot guess: tickets are what tells a child's own events from forged ones. */
kx_status kx_channel_ticket(uint64_t *ret_ticket, struct kx_error *error) KX_MUST_CHECK;

/* One event. KX_EAGAIN: none in time, or one that was not understood (it is dropped; its child will be missed).
 * KX_ECANCELED: wake_fd is readable. */
kx_status kx_channel_recv(struct kx_channel *channel, int timeout_ms, int wake_fd, struct kx_wire_peer *ret_peer,
			  struct kx_decode_event **ret_event, struct kx_error *error) KX_MUST_CHECK;

#endif
