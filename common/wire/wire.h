/* Message sockets (ZeroMQ) and the shared ring that pixels travel in. Layer: wire.
 *
 * A server answers many clients and tells them apart by a peer name that ZeroMQ gives; a client talks to one server.
 * Endpoints are ZeroMQ's: ipc:///path, tcp://host:port, inproc://name. Each socket belongs to one thread.
 */
#ifndef KX_WIRE_WIRE_H
#define KX_WIRE_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

#define KX_WIRE_MESSAGE_MAX (32u << 20) /* bytes; a longer one from a peer closes that peer's connection */
#define KX_WIRE_PEER_MAX 255

struct kx_wire;        /* one a process: owns ZeroMQ's I/O thread */
struct kx_wire_socket;

kx_status kx_wire_new(struct kx_wire **ret, struct kx_error *error) KX_MUST_CHECK;
/* Its sockets first. Waits for unsent messages only as long as a linger given to kx_wire_socket_close() allows. */
void kx_wire_free(struct kx_wire *wire);

/* queue_max: messages a peer that may wait in each direction; then send is KX_EAGAIN, and a sender feels it. Whoever
 * makes a socket closes it. A client's connection comes up in the background and comes back by itself; until then its
 * messages wait. Errors: KX_EINVAL (endpoint, queue_max < 1), KX_EBUSY (somebody listens there), KX_EIO. */
kx_status kx_wire_server(struct kx_wire *wire, const char *endpoint, int queue_max, struct kx_wire_socket **ret,
			 struct kx_error *error) KX_MUST_CHECK;
kx_status kx_wire_client(struct kx_wire *wire, const char *endpoint, int queue_max, struct kx_wire_socket **ret,
			 struct kx_error *error) KX_MUST_CHECK;
/* A client for one who gives up the right to make connections: returns when it is connected, after at most timeout_ms
 * (KX_ETIMEDOUT). No descriptor or thread is made after that, unless the connection breaks. For a peer on this host,
 * whose end is certain to be seen. */
kx_status kx_wire_client_connected(struct kx_wire *wire, const char *endpoint, int queue_max, int timeout_ms,
				   struct kx_wire_socket **ret, struct kx_error *error) KX_MUST_CHECK;
/* linger_ms: how long unsent messages may still go out; -1 for ever. It happens in the background: the endpoint is
 * surely free again after kx_wire_free(). NULL is nothing. */
void kx_wire_socket_close(struct kx_wire_socket *socket, int linger_ms);

/* Where a server really listens (tcp://127.0.0.1:* becomes a port). Owned by the socket. */
const char *kx_wire_endpoint(const struct kx_wire_socket *socket);

struct kx_wire_peer {
	uint8_t len;
	uint8_t name[KX_WIRE_PEER_MAX];
};

/* peer: where to (servers), ignored by clients (NULL). Copies. timeout_ms: -1 for ever, 0 not at all.
 * KX_OK says that the message is on its way, not that it arrived. KX_EAGAIN when there was no room in time (without a
 * message); KX_ENOTFOUND when the peer is gone (known only once what it had sent was received, so don't wait for ever
 * on a server); KX_ETOOBIG over KX_WIRE_MESSAGE_MAX. */
kx_status kx_wire_send(struct kx_wire_socket *socket, const struct kx_wire_peer *peer, const void *bytes, size_t len,
		       int timeout_ms, struct kx_error *error) KX_MUST_CHECK;

struct kx_wire_message {
	struct kx_wire_peer peer; /* servers: who sent it */
	const void *bytes;
	size_t len;
	void *owner;
};
void kx_wire_message_done(struct kx_wire_message *message); /* zeroed memory is nothing */

/* KX_EAGAIN when nothing came in time. wake_fd: another descriptor to wait for, or -1; while it is readable (or its
 * other end is closed) the call returns KX_ECANCELED, before any message, and leaves the descriptor unread. Both
 * without a message in error. */
kx_status kx_wire_recv(struct kx_wire_socket *socket, int timeout_ms, int wake_fd, struct kx_wire_message *ret,
		       struct kx_error *error) KX_MUST_CHECK;

#endif
