/* Inference: a bundle compiled by OpenVINO, run by one stream a core. Layer: worker/model.
 *
 * Results do not depend on what else is in a batch or on an item's place in it: the compiled batch shape is fixed and
 * short batches are filled up (test_model.c proves it bit by bit).
 */
#ifndef KX_WORKER_MODEL_MODEL_H
#define KX_WORKER_MODEL_MODEL_H

#include "common/base/error.h"
#include "worker/model/bundle.h"

enum kx_precision { KX_PRECISION_AUTO, KX_PRECISION_F32, KX_PRECISION_BF16 };

struct kx_runtime; /* OpenVINO's core; one a process, thread-safe */
struct kx_model;
struct kx_model_stream;

kx_status kx_runtime_new(struct kx_runtime **ret, struct kx_error *error) KX_MUST_CHECK;
void kx_runtime_free(struct kx_runtime *runtime); /* models first */
/* What AUTO becomes on this CPU: BF16 where it multiplies bf16 in tiles (AMX), else F32. */
enum kx_precision kx_runtime_precision(const struct kx_runtime *runtime, enum kx_precision wanted);
const char *kx_precision_name(enum kx_precision precision); /* "f32", "bf16" */

struct kx_model_options {
	enum kx_precision precision;
	size_t streams; /* that may infer at the same time */
	size_t batch;   /* 0: the bundle kind's best */
	const char *cache_dir; /* where compiled models are kept, made if need be; NULL: nowhere */
};

/* Compiles, or takes what was compiled before on such a CPU by the same OpenVINO, which computes the same bits. The bundle must outlive the model. Takes from 100 ms to seconds. */
kx_status kx_model_new(struct kx_runtime *runtime, const struct kx_bundle *bundle,
		       const struct kx_model_options *options, struct kx_model **ret,
		       struct kx_error *error) KX_MUST_CHECK;
void kx_model_free(struct kx_model *model); /* streams first */
size_t kx_model_batch(const struct kx_model *model);
const struct kx_bundle *kx_model_bundle(const struct kx_model *model);
enum kx_precision kx_model_precision(const struct kx_model *model); /* never AUTO */

kx_status kx_model_stream_new(struct kx_model *model, struct kx_model_stream **ret,
			      struct kx_error *error) KX_MUST_CHECK;
void kx_model_stream_free(struct kx_model_stream *stream);

/* Runs `count` <= batch items. inputs[i]: input_bytes of one item. features: [count][feature_dim], scores:
 * [count][class_count] after the activation. Blocks for the run; one thread a stream. */
kx_status kx_model_infer(struct kx_model_stream *stream, const void *const *inputs, size_t count, float *features,
			 float *scores, struct kx_error *error) KX_MUST_CHECK;

/* Runs the bundle's golden pairs. *ret_cosine: the lowest cosine seen over features and logits. KX_ECORRUPT when it is
 * under the floor for the precision (f32 0.999, bf16 0.995). A worker refuses such a bundle. */
kx_status kx_model_check(struct kx_model *model, double *ret_cosine, struct kx_error *error) KX_MUST_CHECK;

#endif
