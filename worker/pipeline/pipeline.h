/* From a job to its moments: decoder children, the frame channel, batched inference, pooling. Layer: worker/pipeline.
 *
 *   submit -> queue -> decoder child (one process a job) -- ZeroMQ + shared ring --> inference streams -> moments -> sink
 *
 * Threads it owns: one that runs the decoders' channel and starts and watches children, and one a stream for inference
 * and for the sinks. Memory is bounded by decoders x ring slots. A child that crashes, hangs or eats memory costs its
 * own job only.
 */
#ifndef KX_WORKER_PIPELINE_PIPELINE_H
#define KX_WORKER_PIPELINE_PIPELINE_H

#include "common/fetch/fetch.h"
#include "common/record/job.h"
#include "common/record/media.h"
#include "common/record/moment.h"
#include "common/record/result.h"
#include "worker/model/model.h"

struct kx_pipeline;
struct kx_prober;

struct kx_pipeline_options {
	const char *program;         /* this executable; the decoder host is `program decoder-host` */
	const char *run_dir;         /* for sockets; short (ipc paths end at 107 bytes) */
	const struct kx_bundle *visual; /* must outlive the pipeline; either may be NULL: that track is then refused */
	const struct kx_bundle *audio;
	enum kx_precision precision;
	size_t decoders;             /* children at a time */
	size_t streams;              /* inference streams */
	size_t batch;                /* 0: the model's best */
	const char *model_cache;     /* folder, as in kx_model_options; NULL: none */
	bool lazy;                   /* models are compiled when the first job is submitted, for those who may have none */
	size_t queue_max;            /* jobs accepted and not begun */
	struct kx_fetch *fetch;      /* must outlive the pipeline; NULL: sources that are addresses are refused */
	struct kx_prober *beside;    /* whose decoder host also serves here, which saves a process; to be freed after the
				      * pipeline. NULL: one of its own */
};

/* What a child failed at, for those who keep evidence (capsules). */
struct kx_failure {
	const char *name;         /* the video's id, or what the prober was told to call it */
	const char *source;       /* path; NULL: known by its descriptor only */
	int fd;                   /* the file, borrowed; -1: open source */
	const uint8_t *sha256;    /* of its content; NULL: not known */
	const struct kx_decode_request *request; /* its strings are not set */
	enum kx_reason reason;
	bool retriable;
	uint32_t attempt;         /* 1-based */
	const char *message;
	const char *words;        /* what the child said on standard error; "" for nothing */
};

/* Called on threads of the pipeline or of those who probe, perhaps on several at a time; everything is borrowed. */
typedef void kx_failure_visit(void *ctx, const struct kx_failure *failure);

/* How a job went. */
struct kx_outcome {
	enum kx_reason reason;    /* KX_REASON_NONE: all its moments were sunk */
	bool retriable;
	const char *message;
	struct kx_part_end end;   /* when it went well */
	struct kx_probe_info info;
	uint64_t decode_cpu_us;   /* of the child, as is its peak of resident memory */
	uint64_t decode_rss_bytes;
	uint64_t wall_us;
	const struct kx_failure *failure; /* NULL: it went well, or no child had a part in it */
};

/* Both are called on the pipeline's threads, for one job never at the same time, done last and exactly once (also on
 * stop: reason INTERNAL, retriable). They may block: that holds back this job, and in time all. */
struct kx_pipeline_sink {
	void *ctx;
	const void *owner; /* for kx_pipeline_cancel(); may be NULL */
	void (*moment)(void *ctx, const struct kx_job *job, const struct kx_moment *moment);
	void (*done)(void *ctx, const struct kx_job *job, const struct kx_outcome *outcome);
};

/* Starts the decoder host, compiles the models and checks their golden pairs. Blocks for a second, but lazily for less
 * than a tenth. */
kx_status kx_pipeline_new(const struct kx_pipeline_options *options, struct kx_pipeline **ret, struct kx_error *error)
	KX_MUST_CHECK;
void kx_pipeline_free(struct kx_pipeline *pipeline); /* kills what runs; every job's done is called first */

/* Thread-safe. Copies the job, which must be a whole one (as kx_job_unpack() has it). When it does not return KX_OK,
 * done is not called: KX_EAGAIN the queue is full, KX_ECANCELED it is stopping, KX_EINVAL no attempt can do this job (a
 * track without a bundle, a grid out of range). A lazy one blocks in the first call, and when the models are no good it
 * says so in each: class FATAL, as nothing else here. */
kx_status kx_pipeline_submit(struct kx_pipeline *pipeline, const struct kx_job *job,
			     const struct kx_pipeline_sink *sink, struct kx_error *error) KX_MUST_CHECK;

/* Ends all jobs that were submitted with this owner, as on stop; returns when their done calls have returned.
 * Thread-safe; not from within a sink. */
void kx_pipeline_cancel(struct kx_pipeline *pipeline, const void *owner);

size_t kx_pipeline_decoders(const struct kx_pipeline *pipeline);
/* "visual/lite0/..., audio/yamnet/...": the spaces it fills, for people. Owned by the pipeline. */
const char *kx_pipeline_spaces(const struct kx_pipeline *pipeline);

/* How pictures are taken from a video and rows put together. */
struct kx_sampling {
	double fps;
	enum kx_decode_mode mode;
	uint64_t tolerance_us; /* of KX_DECODE_TOLERANT, else 0 */
	uint64_t moment_us;
};

/* What decides the stored bytes of a job beside the video: spaces (kx_bundle_space(); "" for none) and sampling.
 * SHA-256. */
void kx_recipe(const char *visual_space, const char *audio_space, const struct kx_sampling *sampling,
	       uint8_t ret[KX_SHA_LEN]);
void kx_pipeline_recipe(const struct kx_pipeline *pipeline, const struct kx_sampling *sampling,
			uint8_t ret[KX_SHA_LEN]);
struct kx_sampling kx_job_sampling(const struct kx_job *job);

/* A prober without models: its own decoder host. Thread-safe, blocking, one file at a time; fd is borrowed: a file, or
 * the reader's end of a kx_fetch_stream. */
kx_status kx_prober_new(const char *program, const char *run_dir, struct kx_prober **ret, struct kx_error *error)
	KX_MUST_CHECK;
void kx_prober_free(struct kx_prober *prober);
/* What runs ends soon, its child killed, with KX_ECANCELED; as does at once whatever comes later. Thread-safe. */
void kx_prober_cancel(struct kx_prober *prober);
/* From now on tells visit of every probe that a child failed at. Not while one runs. */
void kx_prober_watch(struct kx_prober *prober, kx_failure_visit *visit, void *ctx);
/* On failure *ret_reason says why; the child's crash or limit is such a reason too. ret_info: kx_probe_info_done(). */
kx_status kx_prober_probe(struct kx_prober *prober, int fd, const char *name, struct kx_probe_info *ret_info,
			  enum kx_reason *ret_reason, struct kx_error *error) KX_MUST_CHECK;

/* The same and every stream in words; the child reads the file to its end. ret_detail: kx_probe_detail_done(). */
kx_status kx_prober_inspect(struct kx_prober *prober, int fd, const char *name, struct kx_probe_info *ret_info,
			    struct kx_probe_detail *ret_detail, enum kx_reason *ret_reason,
			    struct kx_error *error) KX_MUST_CHECK;

/* One child that does what `request` says, under its limits, with nobody to look at what it samples; for running a
 * failure again. Its ticket, endpoint, name and ring are the prober's matter. KX_OK: it came to an end of some kind, and
 * that stands in *ret_reason (KX_REASON_NONE: all was well), ret_message and, where they are not NULL, ret_words; the
 * caller frees the texts. */
kx_status kx_prober_run(struct kx_prober *prober, int fd, const char *name, const struct kx_decode_request *request,
			enum kx_reason *ret_reason, char **ret_message, char **ret_words,
			struct kx_error *error) KX_MUST_CHECK;

/* Body of the hidden command `kinodex decoder-host`: control socket on descriptor 3. Returns an exit status. */
int kx_decoder_host_main(void);

#endif
