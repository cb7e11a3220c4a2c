/* Made-up videos as streams of result messages, for the tests of the shard. Layer: tests only. */
#ifndef KX_SHARD_STORE_TESTKIT_H
#define KX_SHARD_STORE_TESTKIT_H

#include "common/base/buf.h"
#include "common/record/result.h"
#include "shard/store/store.h"

#define KX_KIT_VISUAL_DIM 16u
#define KX_KIT_AUDIO_DIM 8u
#define KX_KIT_VISUAL_SPACE "visual/test"
#define KX_KIT_AUDIO_SPACE "audio/test"
#define KX_KIT_MOMENT_US 10000000u
#define KX_KIT_ROWS 3u /* of every moment */
#define KX_KIT_MESSAGES_MAX 256u

/* Small, fast, and the same everywhere. Never 0. */

struct kx_kit_video {
	const char *id;
	uint64_t generation;
	uint32_t parts;
	uint32_t visual_moments; /* spread over the parts */
	uint32_t audio_moments;  /* all in part 0 */
	uint64_t content;        /* decides everything that the models would have seen; also the content's hash */
	uint8_t recipe;          /* 0: 1 */
	uint64_t moment_us;      /* 0: KX_KIT_MOMENT_US */
};

/* Packed messages in the order that a well-behaved publisher sends them: the plan, then each part. */
struct kx_kit_stream {
	struct kx_buf messages[KX_KIT_MESSAGES_MAX];
	size_t count;
};
void kx_kit_stream_add(struct kx_kit_stream *stream, const struct kx_kit_video *video);
void kx_kit_stream_delete(struct kx_kit_stream *stream, const char *id, uint64_t generation);
void kx_kit_stream_copy(struct kx_kit_stream *stream, const struct kx_kit_video *copy, const char *from);
void kx_kit_stream_done(struct kx_kit_stream *stream);
void kx_kit_stream_shuffle(struct kx_kit_stream *stream, uint64_t *random); /* duplicates are the caller's */
void kx_kit_stream_repeat(struct kx_kit_stream *stream, size_t times, uint64_t *random); /* appends copies of some */

struct kx_store *kx_kit_open(const char *folder); /* to write; the caller closes */
/* Past the store, to do damage. value NULL: deletes. */
void kx_kit_put(struct kx_store *store, enum kx_store_family family, const void *key, size_t key_len, const void *value,
		size_t len);

/* Applies all in one batch and commits. */
kx_status kx_kit_apply(struct kx_store *store, const struct kx_kit_stream *stream, struct kx_error *error);

/* SHA-256 over keys and values of videos, moments, features and pending, in order. */
void kx_kit_digest(struct kx_store *store, uint8_t ret[KX_SHA_LEN]);
uint64_t kx_kit_count(struct kx_store *store, enum kx_store_family family);

/* A new folder under TMPDIR. kx_kit_folder_done() removes and frees it. */
char *kx_kit_folder(void);
void kx_kit_folder_done(char *folder);

#endif
