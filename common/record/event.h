/* What happened, for the coordinator's ledger; and dead letters. Layer: record. */
#ifndef KX_RECORD_EVENT_H
#define KX_RECORD_EVENT_H

#include "common/record/record.h"

enum kx_event_kind {
	KX_EVENT_FINISHED = 1, /* a worker's results of this part were delivered */
	KX_EVENT_FAILED,
	KX_EVENT_STORED,       /* a shard has the whole video, synced */
	KX_EVENT_DELETED,      /* a shard has forgotten this generation and all older ones, synced */
};

struct kx_event {
	char *run_id;
	char *video_id;
	uint64_t generation;
	enum kx_event_kind kind;
	/* finished, failed */
	uint32_t part;
	uint32_t attempt;
	uint64_t decode_cpu_us;
	/* finished */
	uint64_t media_us;
	uint64_t wall_us;
	/* failed */
	enum kx_reason reason;
	bool retriable;
	char *message;
	/* stored */
	uint64_t visual_us;
	uint64_t audio_us;
	uint64_t duration_us;
	bool truncated;
	uint64_t stored_bytes;
	bool missing_source; /* a copy was asked for whose original this shard does not have */
};

KX_RECORD_FUNCTIONS(kx_event);

struct kx_dead_letter {
	char *video_id;
	char *source;
	enum kx_reason reason;
	char *message;
	uint32_t attempts;
	uint64_t generation;
	uint64_t at_ms;
	char *run_id;
	char *software;
};

KX_RECORD_FUNCTIONS(kx_dead_letter);

#endif
