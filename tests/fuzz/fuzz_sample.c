/* A file of any bytes through decoding and sampling, on a small budget. The file is the whole input, so that the corpus
 * is one of files; which request it meets follows from its length. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/macros.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/told.h"
#include "worker/media/media.h"

#define SIDE 32u
#define FRAME_BYTES (SIDE * SIDE * 3u)
#define ITEMS_MAX 48u /* then the sink has enough */

struct sink {
	uint8_t *memory;
	bool held;   /* acquired and not filled */
	bool opened;
	uint64_t items;
	uint64_t next_frame, next_patch;
};

static const struct kx_decode_request requests[] = {
	{.tracks = KX_TRACK_VISUAL | KX_TRACK_AUDIO, .fps = 1},
	{.tracks = KX_TRACK_VISUAL, .fps = 25},
	{.tracks = KX_TRACK_VISUAL, .fps = 8, .start_us = 400000},
	{.tracks = KX_TRACK_VISUAL | KX_TRACK_AUDIO, .fps = 2.5, .start_us = 200000, .end_us = 700000},
	{.tracks = KX_TRACK_VISUAL, .fps = 8, .decode_mode = KX_DECODE_TOLERANT, .decode_tolerance_us = 60000},
	{.tracks = KX_TRACK_VISUAL, .fps = 4, .decode_mode = KX_DECODE_TOLERANT, .decode_tolerance_us = 125000,
	 .start_us = 250000},
	{.tracks = KX_TRACK_VISUAL, .fps = 2, .decode_mode = KX_DECODE_KEYFRAME},
};

static kx_status on_opened(void *ctx, const struct kx_probe_info *info)
{
	struct sink *sink = ctx;

	FUZZ_CHECK(!sink->opened);
	sink->opened = true;
	told_opened(info);
	return KX_OK;
}

static kx_status on_acquire(void *ctx, void **ret_memory)
{
	struct sink *sink = ctx;

	FUZZ_CHECK(sink->opened && !sink->held);
	if (sink->items++ == ITEMS_MAX)
		return KX_ECANCELED;
	sink->held = true;
	*ret_memory = sink->memory;
	return KX_OK;
}

static kx_status on_frame(void *ctx, const struct kx_sample *sample)
{
	struct sink *sink = ctx;

	FUZZ_CHECK(sink->held && sample->index >= sink->next_frame);
	sink->held = false;
	sink->next_frame = sample->index + 1;
	told_sample(KX_DECODE_FRAME, sample);
	return KX_OK;
}

static kx_status on_patch(void *ctx, const struct kx_sample *sample)
{
	struct sink *sink = ctx;

	FUZZ_CHECK(sink->held && sample->index == sink->next_patch);
	sink->held = false;
	sink->next_patch = sample->index + 1;
	told_sample(KX_DECODE_PATCH, sample);
	return KX_OK;
}

int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	kx_media_init();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct kx_decode_request request = requests[len % KX_ARRAY_LEN(requests)];
	/* As large as the larger of the two, and not a byte more. */
	struct sink sink = {.memory = malloc(KX_PATCH_BYTES > FRAME_BYTES ? KX_PATCH_BYTES : FRAME_BYTES)};
	const struct kx_media_sink callbacks = {&sink, on_opened, on_acquire, on_frame, on_patch};
	struct kx_decode_end end = {.reason = KX_REASON_NONE};
	struct kx_error error = {0};
	kx_status status;

	FUZZ_CHECK(sink.memory);
	request.purpose = KX_DECODE_SAMPLE;
	if (!request.decode_mode)
		request.decode_mode = KX_DECODE_EXACT;
	request.width = SIDE;
	request.height = SIDE;
	request.name = (char *)"clip";
	status = kx_media_sample(fuzz_file(bytes, len), &request, &callbacks, &end, &error);
	if (end.reason == KX_REASON_INTERNAL && sink.items <= ITEMS_MAX)
		fprintf(stderr, "%s\n", error.message);
	FUZZ_CHECK((status == KX_OK) == (end.reason == KX_REASON_NONE));
	FUZZ_CHECK(status == KX_OK || sink.items > ITEMS_MAX || end.reason != KX_REASON_INTERNAL);
	FUZZ_CHECK(status != KX_OK || sink.opened);
	told_end(&end);
	kx_media_end_done(&end);
	free(sink.memory);
	return 0;
}
