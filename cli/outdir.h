/* A folder that comes into being whole or not at all: made beside where it is to stand, and renamed. Layer: cli. */
#ifndef KX_CLI_OUTDIR_H
#define KX_CLI_OUTDIR_H

#include "common/base/error.h"

struct kx_outdir {
	char *dir;  /* absolute */
	char *part; /* DIR.part-PID: where it is made, to be renamed when it is whole */
};

/* Makes the part. KX_EEXIST: there is something at name. *ret is the caller's to end, also after a failure. */
kx_status kx_outdir_make(const char *name, struct kx_outdir *ret, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_outdir_keep(const struct kx_outdir *target, struct kx_error *error) KX_MUST_CHECK;
/* Removes the part. Hands status on, with what can't be removed in front of the message. */
kx_status kx_outdir_drop(const struct kx_outdir *target, kx_status status, struct kx_error *error);
void kx_outdir_done(struct kx_outdir *target);

#endif
