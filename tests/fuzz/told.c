#include "tests/fuzz/told.h"

#include <stdio.h>

#include "tests/fuzz/fuzz.h"

#define EVENT_MAX (64u << 10) /* as in worker/pipeline/child.c */

static void tell(const struct kx_decode_event *event)
{
	struct kx_buf packed = {.max = EVENT_MAX};
	struct kx_decode_event *heard = NULL;
	struct kx_error error = {0};

	FUZZ_CHECK(kx_decode_event_pack(event, &packed) == KX_OK);
	if (kx_decode_event_unpack(packed.data, packed.len, &heard, &error) != KX_OK)
		fprintf(stderr, "%s\n", error.message);
	FUZZ_CHECK(heard);
	FUZZ_CHECK(heard->kind == event->kind);
	kx_decode_event_free(heard);
	kx_buf_done(&packed);
}

void told_opened(const struct kx_probe_info *info)
{
	tell(&(struct kx_decode_event){.kind = KX_DECODE_OPENED, .opened = *info});
}

void told_detail(const struct kx_probe_detail *detail)
{
	tell(&(struct kx_decode_event){.kind = KX_DECODE_DETAIL, .detail = *detail});
}

void told_sample(enum kx_decode_event_kind kind, const struct kx_sample *sample)
{
	tell(&(struct kx_decode_event){.kind = kind, .sample = *sample});
}

void told_end(const struct kx_decode_end *end)
{
	tell(&(struct kx_decode_event){.kind = KX_DECODE_END, .end = *end});
}
