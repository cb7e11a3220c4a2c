/* The ledger: how every input stands, and the dead letters. Layer: coordinator/ledger.
 *
 * A store of its own (data_dir/ledger). A handle may be used by many threads. Any number of processes may open it
 * read-only beside the one that writes; they see it as it was when they opened. Everything here may block on disk.
 * What a function returns in ret_* is the caller's to free.
 */
#ifndef KX_COORDINATOR_LEDGER_LEDGER_H
#define KX_COORDINATOR_LEDGER_LEDGER_H

#include <stdbool.h>

#include "common/record/event.h"
#include "common/record/video.h"

struct kx_ledger;

/* A writer makes what is missing. KX_ENOTFOUND (read-only: nothing was indexed yet), KX_EBUSY (another process writes),
 * KX_EVERSION (another format), KX_ECORRUPT, KX_EFULL, KX_EPERM; all name data_dir and the cure. */
kx_status kx_ledger_open(const char *data_dir, bool read_only, struct kx_ledger **ret, struct kx_error *error)
	KX_MUST_CHECK;
void kx_ledger_close(struct kx_ledger *ledger);
void kx_ledger_cleanup(struct kx_ledger **ledger);

/* KX_ENOTFOUND without a message when there is none. */
kx_status kx_ledger_get(struct kx_ledger *ledger, const char *video_id, struct kx_input **ret, struct kx_error *error)
	KX_MUST_CHECK;
/* The input and, where letter is not NULL, its dead letter in one synced write; without one an older letter goes. A
 * quarantined input has a letter of its own id, and no other has; that, and a record that would not read back (a field
 * over its limit, no source) is KX_EINVAL, and nothing is written. */
kx_status kx_ledger_put(struct kx_ledger *ledger, const struct kx_input *input, const struct kx_dead_letter *letter,
			struct kx_error *error) KX_MUST_CHECK;
/* Id of an input that is done or partial with this content, for copies and renames; the first in their order.
 * KX_ENOTFOUND without a message, as for an all-zero hash. */
kx_status kx_ledger_by_content(struct kx_ledger *ledger, const uint8_t sha256[KX_SHA_LEN], char **ret_id,
			       struct kx_error *error) KX_MUST_CHECK;

/* Calls visit for each, bytewise in the order of ids, until it returns other than KX_OK, which is then returned. They
 * are those that stood there at the call; visit may use the ledger. */
kx_status kx_ledger_each(struct kx_ledger *ledger,
			 kx_status (*visit)(void *ctx, const struct kx_input *input, struct kx_error *error),
			 void *ctx, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_ledger_each_dead(struct kx_ledger *ledger,
			      kx_status (*visit)(void *ctx, const struct kx_dead_letter *letter,
						 struct kx_error *error),
			      void *ctx, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_ledger_get_dead(struct kx_ledger *ledger, const char *video_id, struct kx_dead_letter **ret,
			     struct kx_error *error) KX_MUST_CHECK;

/* Proves the sum: every byte on disk has its checksum; every record reads back and is in exactly one state; every
 * quarantined input has a dead letter and no other has; the index by content agrees. Counts by state, where ret_counts
 * is indexed by enum kx_input_state. KX_ECORRUPT names the record. Writers wait meanwhile. */
kx_status kx_ledger_verify(struct kx_ledger *ledger, uint64_t ret_counts[KX_INPUT_DELETED + 1], struct kx_error *error)
	KX_MUST_CHECK;

/* A copy as of now, in a folder that must not be there yet (KX_EEXIST). Writers only (KX_EPERM). */
kx_status kx_ledger_checkpoint(struct kx_ledger *ledger, const char *path, struct kx_error *error) KX_MUST_CHECK;

#endif
