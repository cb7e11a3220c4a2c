/* For this folder's tests: clips made with the ffmpeg tool, and a sink that keeps everything. */
#ifndef KX_MEDIA_TESTKIT_H
#define KX_MEDIA_TESTKIT_H

#include "worker/media/media.h"

struct kit_item {
	struct kx_sample sample;
	uint64_t hash; /* of the frame's or patch's bytes */
	uint8_t *bytes;
};

struct kit_run {
	struct kx_probe_info info;
	struct kx_decode_end end;
	struct kx_error error;
	kx_status status;
	struct kit_item *frames;
	size_t frame_count;
	struct kit_item *patches;
	size_t patch_count;
	/* Of the sink. */
	bool keep_bytes;
	size_t frame_bytes;
	size_t fail_at; /* the frame at which the sink fails, 0: never */
	uint8_t *memory;
};

struct kit_want {
	uint32_t tracks;  /* 0: both */
	double fps;       /* 0: 1 */
	enum kx_decode_mode mode; /* 0: exact */
	uint64_t tolerance_us;
	uint64_t start_us;
	uint64_t end_us;
	uint32_t side;    /* 0: 224 */
	bool decode_all;
	bool keep_bytes;
	size_t fail_at;
};

/* Of a group of tests: a folder of its own under the build's temporary place; kit_leave() removes it with all in it. */
int kit_enter(void **state);
int kit_leave(void **state);
const char *kit_path(const char *name); /* inside that folder; valid until the 8th next call */

/* Runs `ffmpeg -nostdin -v error -y ARGUMENTS FOLDER/name`; fails the test when it fails. Returns the path. */
const char *kit_clip(const char *name, const char *arguments);
void kit_shell(const char *format, ...) KX_PRINTF(1, 2);
/* Keeps only the first `bytes` of a copy. */
const char *kit_cut(const char *path, const char *name, double part);
void kit_write(const char *path, const void *bytes, size_t len);

void kit_sample(const char *path, struct kit_want want, struct kit_run *ret_run);
void kit_done(struct kit_run *run);
kx_status kit_probe(const char *path, struct kx_probe_info *ret_info, enum kx_reason *ret_reason);

/* Same indices, times and bytes; says where they part. */
void kit_assert_same(const struct kit_run *a, const struct kit_run *b, const char *what);

#endif
