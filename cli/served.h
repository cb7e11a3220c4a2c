/* What `kinodex serve` answers from, as the gateway's backend: the store of a data directory, the process that writes to
 * it, or shards elsewhere; bundles for names of classes; a decoder host for thumbnails. Layer: cli. */
#ifndef KX_CLI_SERVED_H
#define KX_CLI_SERVED_H

#include "common/config/config.h"
#include "gateway/backend/backend.h"

struct kx_served;

/* With --shards asks those; else opens --data to read. Blocks while a store is read. */
kx_status kx_served_open(const struct kx_config *config, struct kx_served **ret, struct kx_error *error) KX_MUST_CHECK;
void kx_served_free(struct kx_served *served); /* NULL is nothing */

struct kx_backend kx_served_backend(struct kx_served *served);

/* To be called now and then, by one thread: sees that a process began or ended to write, and reads the store again when one
 * has ended. Blocks then; others ask meanwhile. */
void kx_served_look(struct kx_served *served);

/* "the store in DIR", "2 shards"; owned by served. */
const char *kx_served_name(const struct kx_served *served);

#endif
