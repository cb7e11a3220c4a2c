/* The logic that decides: which jobs a video becomes, what a failure means, when an input has ended. Pure: no I/O, no
 * clock, no threads. Layer: coordinator/core.
 *
 * step(state, event) -> actions. Whoever drives it carries the actions out in their order, and tells it what happened.
 * Tests drive it with a virtual clock and printed seeds. It holds only videos that are on their way, so its memory
 * does not grow with the catalogue.
 *
 *   found -> [probe] -> planned -> parts published -> finished -> stored -> done | partial
 *                         |            `- failed: again, or ---------------> quarantined
 *                         `- copy of a known content -> stored -> done
 */
#ifndef KX_COORDINATOR_CORE_CORE_H
#define KX_COORDINATOR_CORE_CORE_H

#include "common/record/event.h"
#include "common/record/job.h"
#include "common/record/media.h"
#include "common/record/video.h"

struct kx_core;

struct kx_core_options {
	const char *run_id;
	const char *software;
	double fps;
	uint64_t segment_us;
	uint64_t moment_us;
	enum kx_decode_mode decode_mode;
	uint64_t decode_tolerance_us;
	uint8_t recipe_sha256[KX_SHA_LEN];
	size_t jobs_ahead;     /* jobs published and not finished */
	uint32_t attempts_max;
	uint64_t wall_limit_ms, cpu_limit_ms, memory_limit_bytes; /* of a job; 0: by its length */
	uint64_t silence_us;   /* a job or a stored video that nobody speaks of for so long is tried again */
};

kx_status kx_core_new(const struct kx_core_options *options, struct kx_core **ret) KX_MUST_CHECK;
void kx_core_free(struct kx_core *core);
void kx_core_cleanup(struct kx_core **core);

enum kx_core_event_kind {
	KX_CORE_FOUND = 1, /* input, info: probed and to be indexed */
	KX_CORE_REFUSED,   /* input with reason and message: can't be indexed */
	KX_CORE_COPIED,    /* input, info, input->copy_of: its content is known under another id */
	KX_CORE_GONE,      /* input: was indexed once and is not in its source any more */
	KX_CORE_BUS,       /* bus: what a worker or a shard said */
	KX_CORE_TICK,
};

struct kx_core_event {
	enum kx_core_event_kind kind;
	uint64_t now_us;  /* monotonic */
	uint64_t wall_ms; /* Unix time, for records */
	const struct kx_input *input; /* id, source, content and metadata; generation: the last one used, or 0 */
	const struct kx_probe_info *info;
	const struct kx_event *bus;
};

enum kx_core_action_kind {
	KX_CORE_PUT_INPUT = 1,  /* write input (and letter, when set) to the ledger, synced */
	KX_CORE_PUBLISH_RESULT, /* plan, delete or copy, for the shard */
	KX_CORE_PUBLISH_JOB,
};

/* What is pointed to belongs to the actions. */
struct kx_core_action {
	enum kx_core_action_kind kind;
	struct kx_input *input;
	struct kx_dead_letter *letter; /* also to be published as a dead letter */
	struct kx_result *result;
	struct kx_job *job;
};

struct kx_core_actions {
	struct kx_core_action *items;
	size_t count, cap;
};
void kx_core_actions_clear(struct kx_core_actions *actions); /* frees what they hold, keeps the array */
void kx_core_actions_done(struct kx_core_actions *actions);

/* Appends to actions. KX_ENOMEM leaves the core as it was. Events about videos or generations that it does not know are
 * of earlier runs, and ignored. */
kx_status kx_core_step(struct kx_core *core, const struct kx_core_event *event, struct kx_core_actions *actions)
	KX_MUST_CHECK;

/* More inputs would find room: FOUND is always taken, but one that waits for this keeps memory bounded. */
bool kx_core_wants_more(const struct kx_core *core);
/* Nothing is on its way. */
bool kx_core_idle(const struct kx_core *core);

struct kx_core_counts {
	uint64_t done, partial, quarantined, deleted, copied;
	uint64_t reasons[KX_REASON_COUNT]; /* of quarantined */
	uint64_t media_us;         /* video time of parts that finished */
	uint64_t media_planned_us;
	uint64_t indexed_us;       /* video time of videos that ended well */
	uint64_t decode_cpu_us;
	uint64_t stored_bytes;
};
const struct kx_core_counts *kx_core_counts(const struct kx_core *core);

#endif
