/* Events on their way: published from the store's outbox, and known to have arrived or to be sent again.
 * Layer: shard/run.
 *
 * An event is committed with the data it tells of. It leaves the outbox only when the bus has confirmed it, so a
 * shard that dies between commit and publish tells it when it comes back.
 */
#ifndef KX_SHARD_RUN_OUTBOX_H
#define KX_SHARD_RUN_OUTBOX_H

#include "common/bus/bus.h"
#include "shard/store/store.h"

#define KX_OUTBOX_WAITING_MAX 1024u /* events; then the shard waits for the bus before it takes in more */

struct kx_outbox; /* used by one thread; the bus confirms on any */

/* topic is copied. */
kx_status kx_outbox_new(struct kx_bus *bus, const char *topic, struct kx_outbox **ret) KX_MUST_CHECK;
/* Confirmations that come later are ignored. NULL is nothing. */
void kx_outbox_free(struct kx_outbox *outbox);

/* Publishes, now or when there is room. Copies. KX_ENOMEM, or what the bus says other than "full". */
kx_status kx_outbox_send(struct kx_outbox *outbox, const struct kx_store_event *event, struct kx_error *error)
	KX_MUST_CHECK;
/* Sends again what failed or found no room; marks what arrived as delivered in the batch. */
kx_status kx_outbox_settle(struct kx_outbox *outbox, struct kx_store_batch *batch, struct kx_error *error)
	KX_MUST_CHECK;
/* There is something for kx_outbox_settle() to do. */
bool kx_outbox_unsettled(struct kx_outbox *outbox);
size_t kx_outbox_waiting(struct kx_outbox *outbox); /* not confirmed */

#endif
