/* What model.c and check.c share of OpenVINO. Inside worker/model. */
#ifndef KX_WORKER_MODEL_RUNTIME_H
#define KX_WORKER_MODEL_RUNTIME_H

#include <openvino/c/openvino.h>

#include "worker/model/model.h"

#define KX_RUNTIME_CPU_MAX 128

/* What this CPU says it can do, as text; "" where nobody knows how to ask. */
void kx_runtime_cpu(char ret_text[KX_RUNTIME_CPU_MAX]);

ov_core_t *kx_runtime_core(const struct kx_runtime *runtime);

/* KX_OK, or an error with OpenVINO's own words about the last failure on this thread. */
kx_status kx_runtime_status(ov_status_e status, struct kx_error *error, const char *what);

/* Like kx_model_infer(), with logits as they come out instead of scores. */
kx_status kx_model_run(struct kx_model_stream *stream, const void *const *inputs, size_t count, float *features,
		       float *logits, struct kx_error *error) KX_MUST_CHECK;

#endif
