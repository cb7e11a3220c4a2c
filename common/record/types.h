/* The vocabulary that every role shares: modalities, tracks, decode modes, reasons, states. Layer: record. */
#ifndef KX_RECORD_TYPES_H
#define KX_RECORD_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KX_FORMAT_VERSION 1u /* of every message and stored record */

#define KX_ID_MAX 4096u            /* bytes of a video id */
#define KX_PATH_MAX 16384u
#define KX_TEXT_MAX 4096u          /* titles, messages, labels */
#define KX_LABELS_MAX 1024u
#define KX_DIM_MAX 4096u           /* of a feature or an embedding */
#define KX_MOMENT_ROWS_MAX 4096u
#define KX_CLASSES_MAX 64u         /* kept per moment or video */
#define KX_PARTS_MAX 65536u
#define KX_SPACE_MAX 128u          /* characters of a space's name, with the zero */
#define KX_MOMENTS_MAX (1u << 24)  /* of one modality of a video: 970 days at 5 s */
#define KX_MEDIA_US_MAX (UINT64_C(1) << 53) /* microseconds; exact in a double, a thousand add up safely */
#define KX_FPS_MIN 1e-6            /* a frame in eleven days */
#define KX_FPS_MAX 240.0
#define KX_TOLERANCE_US_MAX (UINT64_C(3600) * 1000000) /* of a decode mode that has one; at least 1 */
#define KX_FRAME_SIDE_MAX 4096u    /* pixels, of the frames that a model takes */
#define KX_DECODE_SLOTS_MAX 65536u   /* of the ring that a decoder fills */
#define KX_DECODE_SLOT_BYTES_MAX (64u << 20)
#define KX_RECORD_MAX (32u << 20)  /* bytes of any packed message */

#define KX_SHA_LEN 32

enum kx_modality { KX_VISUAL = 1, KX_AUDIO = 2 };

enum kx_track { KX_TRACK_VISUAL = 1u, KX_TRACK_AUDIO = 2u };

/* Which frame stands for an instant of the sampling grid. Numbers are stored: append only. */
enum kx_decode_mode {
	KX_DECODE_EXACT = 1, /* the one on screen then */
	KX_DECODE_TOLERANT,  /* of those within the tolerance the cheapest to decode */
	KX_DECODE_KEYFRAME,  /* the nearest key frame */
};

/* How an input stands in the ledger. Each ends in exactly one of the last four. */
enum kx_input_state {
	KX_INPUT_PLANNED = 1,
	KX_INPUT_DONE,
	KX_INPUT_PARTIAL,
	KX_INPUT_QUARANTINED,
	KX_INPUT_DELETED,
};

/* Why an input, or one attempt at it, went wrong. Numbers are stored: append only. */
enum kx_reason {
	KX_REASON_NONE = 1,
	KX_REASON_NOT_FOUND,       /* gone, or a dangling link */
	KX_REASON_NO_PERMISSION,
	KX_REASON_EMPTY_FILE,
	KX_REASON_NOT_MEDIA,       /* no demuxer knows it */
	KX_REASON_TRUNCATED,       /* cut before anything could be decoded */
	KX_REASON_NO_STREAMS,      /* neither picture nor sound */
	KX_REASON_UNSUPPORTED,     /* a codec or a kind of source that this build does not read */
	KX_REASON_NO_FRAMES,       /* streams, but nothing came out of the decoder */
	KX_REASON_TOO_LARGE,       /* over the limit on pixels */
	KX_REASON_WALL_LIMIT,      /* took too long */
	KX_REASON_CPU_LIMIT,
	KX_REASON_MEMORY_LIMIT,
	KX_REASON_CRASHED,         /* the decoder child died */
	KX_REASON_CHANGED,         /* the file changed while it was read */
	KX_REASON_DUPLICATE_ID,    /* another input has this id */
	KX_REASON_READ_FAILED,     /* the disk or the source failed */
	KX_REASON_MODEL_FAILED,    /* inference failed */
	KX_REASON_INTERNAL,
	KX_REASON_SANDBOX,         /* the decoder child tried what no decoder has to do */
	KX_REASON_COUNT,
};

/* Kebab-case words for people and JSON: "not-media". Never NULL. */
const char *kx_reason_name(enum kx_reason reason);
/* One sentence: what it means and what to do. */
const char *kx_reason_help(enum kx_reason reason);
const char *kx_input_state_name(enum kx_input_state state);
const char *kx_modality_name(enum kx_modality modality);
/* "exact", "tol", "keyframe". */
const char *kx_decode_mode_name(enum kx_decode_mode mode);

#endif
