/* What a decoder child says, as its parent hears it: packed, unpacked, and accepted. For fuzz targets. */
#ifndef KX_FUZZ_TOLD_H
#define KX_FUZZ_TOLD_H

#include "common/record/media.h"

void told_opened(const struct kx_probe_info *info);
void told_detail(const struct kx_probe_detail *detail);
void told_sample(enum kx_decode_event_kind kind, const struct kx_sample *sample);
void told_end(const struct kx_decode_end *end);

#endif
