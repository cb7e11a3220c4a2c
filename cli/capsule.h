/* Capsules: what is left of a failure for those who look into it, one folder each. Layer: cli.
 *
 *   DATA/capsules/NAME/capsule.json   reason, message, standard error, job, versions, and where the input is; for people
 *                      request.pb     what the decoder child was asked (kx_decode_request)
 *                      input          the file, when it is small or was reduced
 *
 * NAME is made from the video's id. Writing one costs some milliseconds and at most a copy of a megabyte, so indexing
 * does not wait for it; the smallest input is looked for later, when somebody asks (kinodex replay --reduce). A capsule
 * lives as long as its dead letter, and all of them are bounded.
 */
#ifndef KX_CLI_CAPSULE_H
#define KX_CLI_CAPSULE_H

#include "common/record/media.h"
#include "worker/pipeline/pipeline.h"

#define KX_CAPSULE_COPY_MAX (1u << 20)   /* bytes; a larger input is referred to */
#define KX_CAPSULE_INPUT_MAX (64u << 20) /* of an input that was reduced */
#define KX_CAPSULES_MAX 1000u            /* in a data directory */
#define KX_CAPSULES_BYTES_MAX (256u << 20)

/* ---- leaving them ---- */

struct kx_capsules;

/* attempts: a failure that may be tried again leaves one only at its last attempt. */
kx_status kx_capsules_new(const char *data_dir, uint32_t attempts, struct kx_capsules **ret,
			  struct kx_error *error) KX_MUST_CHECK;
/* A kx_failure_visit; ctx is the kx_capsules. Thread-safe; blocks on disk. What can't be written is logged. */
void kx_capsules_failed(void *ctx, const struct kx_failure *failure);
/* Frees it, and removes the capsules of inputs that have no dead letter (any more), and the oldest over the bounds. NULL
 * is nothing. */
void kx_capsules_end(struct kx_capsules *capsules);

/* Of the input with this id: whether or not it is there. NULL when out of memory; the caller frees. */
char *kx_capsule_path(const char *data_dir, const char *video_id);

/* ---- reading them ---- */

struct kx_capsule {
	char *dir;
	enum kx_reason reason;
	struct kx_decode_request *request; /* name: the path of the input as it was */
	int fd;                            /* the input that is to be read */
	bool own_input;                    /* it is the capsule's */
	uint64_t bytes;
};

/* KX_ENOTFOUND, KX_ECORRUPT; KX_ENOTFOUND also when it refers to a file that is gone or is not the same any more. */
kx_status kx_capsule_open(const char *dir, struct kx_capsule **ret, struct kx_error *error) KX_MUST_CHECK;
void kx_capsule_free(struct kx_capsule *capsule);
void kx_capsule_cleanup(struct kx_capsule **capsule);

/* Puts a smaller input into it. */
kx_status kx_capsule_replace(struct kx_capsule *capsule, const void *bytes, size_t len,
			     struct kx_error *error) KX_MUST_CHECK;

#endif
