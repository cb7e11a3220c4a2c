/* What a pipeline and its decoder host say to each other on the control socket (SOCK_SEQPACKET, both ends are this
 * executable on this machine, so plain structs travel). Layer: worker/pipeline, private.
 *
 *   host   -> READY                          once, when it can take work; with an error: it can't lock children in
 *   client -> START {ticket, packed kx_decode_request} + descriptors: file, and for sampling ring memory, ring wake
 *   client -> KILL  {ticket}
 *   client -> JOIN  {} + a socket            another client, at the other end of that one; it is told READY
 *   host   -> EXIT  {ticket, how}            once a START, to who sent that
 *
 * The end of the first client's socket is the end of the host: it kills its children and goes. The end of one that
 * joined is that of its children.
 */
#ifndef KX_WORKER_PIPELINE_PROTOCOL_H
#define KX_WORKER_PIPELINE_PROTOCOL_H

#include <stddef.h>
#include <stdint.h>

#define KX_HOST_CONTROL_FD 3
#define KX_HOST_MESSAGE_MAX (48u << 10) /* a request holds one path of at most KX_PATH_MAX and one endpoint */
#define KX_HOST_FDS_MAX 3
#define KX_HOST_CHILDREN_MAX 256
#define KX_HOST_CLIENTS_MAX 4
#define KX_HOST_WORDS_MAX 4096 /* of what a child said on standard error: the end of it */

enum kx_host_verb { KX_HOST_READY = 1, KX_HOST_START, KX_HOST_KILL, KX_HOST_EXIT, KX_HOST_JOIN };

struct kx_host_header {
	uint32_t verb;
	uint32_t error; /* EXIT: errno when no child could be made; READY: KX_HOST_UNSAFE; else 0 */
	uint64_t ticket;
};

struct kx_host_exit {
	struct kx_host_header header;
	uint64_t cpu_us;
	uint64_t max_rss_bytes;
	int32_t wait_status;
	uint32_t words_len;
	char words[KX_HOST_WORDS_MAX]; /* only words_len of them travel */
};

#define KX_HOST_UNSAFE 1u
#define KX_HOST_EXIT_LEN(words_len) (offsetof(struct kx_host_exit, words) + (words_len))

/* Exit statuses of a child. */
enum kx_child_status {
	KX_CHILD_DONE = 0,   /* it sent END, whatever END says */
	KX_CHILD_SETUP = 10, /* limits, descriptors or sockets could not be set up */
	KX_CHILD_LOST = 11,  /* the channel broke */
	KX_CHILD_NOMEM = 12,
};

#endif
