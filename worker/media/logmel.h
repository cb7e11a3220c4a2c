/* Sound at 16 kHz to log-mel patches as YAMNet takes them (Hershey et al., "CNN architectures for large-scale audio
 * classification", 2017; constants in media.h). Layer: worker/media, pure.
 *
 * Streaming, constant memory. How the samples are cut into calls does not change a bit of what comes out. */
#ifndef KX_MEDIA_LOGMEL_H
#define KX_MEDIA_LOGMEL_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"
#include "worker/media/media.h"

#define KX_LOGMEL_RATE 16000u
#define KX_LOGMEL_PATCH_SAMPLES 15600u /* 95 hops of 160 and a window of 400 */
#define KX_LOGMEL_LOUDEST 64.0f        /* 36 dB over full scale */

struct kx_logmel;

/* Called for patch 0, 1, ... with KX_PATCH_HOPS rows of KX_PATCH_BANDS. */
typedef kx_status kx_logmel_emit(void *ctx, uint64_t index, const float *patch);

kx_status kx_logmel_new(kx_logmel_emit *emit, void *ctx, struct kx_logmel **ret_logmel) KX_MUST_CHECK;
void kx_logmel_free(struct kx_logmel *logmel);

/* A sample beyond KX_LOGMEL_LOUDEST counts as that, one that is no number as silence. Returns what emit returned when it
 * failed. */
kx_status kx_logmel_push(struct kx_logmel *logmel, const float *samples, size_t count) KX_MUST_CHECK;
/* The end: sound between 0.1 s and one patch is filled up with silence to one patch, other rests are dropped. */
kx_status kx_logmel_finish(struct kx_logmel *logmel) KX_MUST_CHECK;

#endif
