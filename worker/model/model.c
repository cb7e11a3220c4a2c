#include "worker/model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/fault.h"
#include "common/base/macros.h"
#include "common/base/str.h"
#include "common/learn/learn.h"
#include "worker/model/cache.h"
#include "worker/model/runtime.h"

#define BATCH_MAX 256
#define STREAMS_MAX 256

struct kx_model {
	const struct kx_bundle *bundle;
	enum kx_precision precision;
	size_t batch;
	ov_compiled_model_t *compiled;
	struct kx_cached cached; /* what `compiled` was read from, and still looks at */
};

struct kx_model_stream {
	struct kx_model *model;
	ov_infer_request_t *request;
	ov_tensor_t *input, *features, *logits; /* of the request, which reuses them in each run */
};

/* docs/decisions/0005-inference.md has the measurements behind these. */
static size_t default_batch(enum kx_bundle_kind kind)
{
	return kind == KX_BUNDLE_AUDIO ? 4 : 1;
}

/* Some graphs take a reshape that they can't compute: compare with the sizes the graph itself states. */
static bool fits(const ov_partial_shape_t *stated, const int64_t *dims, size_t count)
{
	if (stated->rank.min != (int64_t)count || stated->rank.max != (int64_t)count)
		return false;
	for (size_t i = 0; i < count; i++) {
		const ov_dimension_t *dim = &stated->dims[i];
		if (dims[i] < dim->min || (dim->max >= 0 && dims[i] > dim->max))
			return false;
	}
	return true;
}

static kx_status check_shape(const ov_model_t *graph, const char *input, const int64_t *dims, size_t count,
			     struct kx_error *error)
{
	ov_output_const_port_t *port = NULL;
	ov_partial_shape_t stated;
	kx_status status =
		kx_runtime_status(ov_model_const_input_by_name(graph, input, &port), error, "looking for input.name");

	if (status)
		return status;
	status = kx_runtime_status(ov_port_get_partial_shape(port, &stated), error, "shape of the input");
	ov_output_const_port_free(port);
	if (status)
		return status;
	if (!fits(&stated, dims, count))
		status = kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
				      "\"%s\" of the model does not take input.shape of the manifest with a batch of "
				      "%lld",
				      input, (long long)dims[0]);
	ov_partial_shape_free(&stated);
	return status;
}

/* Fixes the shape, and with it the kernels, before compiling. */
static kx_status set_shape(ov_model_t *graph, const struct kx_bundle *bundle, size_t batch, struct kx_error *error)
{
	int64_t dims[1 + KX_ARRAY_LEN(bundle->shape)];
	ov_partial_shape_t shape;

	dims[0] = (int64_t)batch;
	for (size_t i = 0; i < bundle->rank; i++)
		dims[i + 1] = (int64_t)bundle->shape[i];
	kx_status status = check_shape(graph, bundle->input_name, dims, bundle->rank + 1, error);
	if (status)
		return status;
	status = kx_runtime_status(ov_partial_shape_create_static((int64_t)bundle->rank + 1, dims, &shape), error,
				   "shape");
	if (status)
		return status;
	status = kx_runtime_status(ov_model_reshape_input_by_name(graph, bundle->input_name, shape), error,
				   "setting the shape of the input");
	ov_partial_shape_free(&shape);
	return status;
}

#define PROPERTIES 5

/* count: memory for a number. */
static void fill_properties(const struct kx_model *model, size_t streams, char count[24],
			    ov_property_t ret[PROPERTIES])
{
	const ov_property_t properties[PROPERTIES] = {
		{ov_property_key_num_streams, count},
		{ov_property_key_inference_num_threads, count},
		{ov_property_key_hint_inference_precision, kx_precision_name(model->precision)},
		{ov_property_key_hint_performance_mode, "THROUGHPUT"},
		/* Pinned streams of several workers would all sit on the first cores. */
		{ov_property_key_hint_enable_cpu_pinning, "NO"},
	};

	snprintf(count, 24, "%zu", streams);
	memcpy(ret, properties, sizeof(properties));
}

static kx_status compile_graph(struct kx_runtime *runtime, const ov_model_t *graph, struct kx_model *model,
			       size_t streams, struct kx_error *error)
{
	char count[24];
	ov_property_t properties[PROPERTIES];

	fill_properties(model, streams, count, properties);
	return kx_runtime_status(ov_core_compile_model_props(kx_runtime_core(runtime), graph, "CPU", PROPERTIES,
							     properties, &model->compiled),
				 error, "compiling");
}

/* The plug-in quietly takes another precision when the CPU lacks the one asked for; the space's name would lie. */
static kx_status check_precision(const struct kx_model *model, struct kx_error *error)
{
	char *got = NULL;
	kx_status status = kx_runtime_status(ov_compiled_model_get_property(model->compiled,
									    ov_property_key_hint_inference_precision,
									    &got),
					     error, "reading the precision");

	if (status)
		return status;
	bool same = kx_str_eq(got, kx_precision_name(model->precision));
	ov_free(got);
	return same ? KX_OK
		    : kx_error_set(error, KX_EUNSUPPORTED, KX_ERROR_FATAL,
				   "this CPU can't compute in %s; use --precision=auto",
				   kx_precision_name(model->precision));
}

/* From the cache; the import takes its properties from the core. False: compile it. */
static bool import(struct kx_runtime *runtime, struct kx_model *model, size_t streams, const char *path)
{
	ov_core_t *core = kx_runtime_core(runtime);
	char count[24];
	ov_property_t properties[PROPERTIES];
	bool good = kx_cache_open(path, &model->cached);

	if (!good)
		return false;
	fill_properties(model, streams, count, properties);
	good = ov_core_set_properties(core, "CPU", PROPERTIES, properties) == OK &&
	       ov_core_import_model(core, model->cached.bytes, model->cached.len, "CPU", &model->compiled) == OK &&
	       check_precision(model, NULL) == KX_OK;
	if (good)
		return true;
	ov_compiled_model_free(model->compiled);
	model->compiled = NULL;
	kx_cache_close(&model->cached);
	kx_cache_drop(path);
	return false;
}

static kx_status compile(struct kx_runtime *runtime, struct kx_model *model, size_t streams, struct kx_error *error)
{
	ov_model_t *graph = NULL;
	kx_status status = kx_runtime_status(
		ov_core_read_model(kx_runtime_core(runtime), model->bundle->model_path, NULL, &graph), error,
		"reading");

	if (status)
		return status;
	if (!(status = set_shape(graph, model->bundle, model->batch, error)) &&
	    !(status = compile_graph(runtime, graph, model, streams, error)))
		status = check_precision(model, error);
	ov_model_free(graph);
	return status;
}

static kx_status build(struct kx_runtime *runtime, struct kx_model *model, const struct kx_model_options *options,
		       struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *path = options->cache_dir ?
		kx_cache_path(options->cache_dir, runtime, model->bundle, model->batch, model->precision) : NULL;

	if (path && import(runtime, model, options->streams, path))
		return KX_OK;
	kx_status status = compile(runtime, model, options->streams, error);
	if (status == KX_OK && path)
		kx_cache_save(path, model->compiled);
	return status;
}

kx_status kx_model_new(struct kx_runtime *runtime, const struct kx_bundle *bundle,
		       const struct kx_model_options *options, struct kx_model **ret, struct kx_error *error)
{
	if (options->streams < 1 || options->streams > STREAMS_MAX || options->batch > BATCH_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "streams must be 1 to %d and batch at most %d",
				    STREAMS_MAX, BATCH_MAX);
	struct kx_model *model = calloc(1, sizeof(*model));
	if (!model)
		return kx_error_nomem(error);
	model->bundle = bundle;
	model->precision = kx_runtime_precision(runtime, options->precision);
	model->batch = options->batch ? options->batch : default_batch(bundle->kind);
	kx_status status = build(runtime, model, options, error);
	if (status) {
		kx_model_free(model);
		return kx_error_prefix(error, status, "%s", bundle->model_path);
	}
	*ret = model;
	return KX_OK;
}

void kx_model_free(struct kx_model *model)
{
	if (!model)
		return;
	ov_compiled_model_free(model->compiled);
	kx_cache_close(&model->cached);
	free(model);
}

size_t kx_model_batch(const struct kx_model *model)
{
	return model->batch;
}

const struct kx_bundle *kx_model_bundle(const struct kx_model *model)
{
	return model->bundle;
}

enum kx_precision kx_model_precision(const struct kx_model *model)
{
	return model->precision;
}

/* Fetches a tensor of the request and makes sure it is what the manifest says. */
static kx_status get_tensor(struct kx_model_stream *stream, const char *name, ov_element_type_e type, size_t bytes,
			    ov_tensor_t **ret, struct kx_error *error)
{
	ov_element_type_e got_type = DYNAMIC;
	size_t got_bytes = 0;
	kx_status status;

	if ((status = kx_runtime_status(ov_infer_request_get_tensor(stream->request, name, ret), error, name)) ||
	    (status = kx_runtime_status(ov_tensor_get_element_type(*ret, &got_type), error, name)) ||
	    (status = kx_runtime_status(ov_tensor_get_byte_size(*ret, &got_bytes), error, name)))
		return status;
	if (got_type != type || got_bytes != bytes)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
				    "\"%s\" of the model is not of the type and size that the manifest gives (%zu bytes "
				    "instead of %zu)",
				    name, got_bytes, bytes);
	return KX_OK;
}

static kx_status get_tensors(struct kx_model_stream *stream, struct kx_error *error)
{
	const struct kx_bundle *b = stream->model->bundle;
	size_t batch = stream->model->batch;
	kx_status status;

	if ((status = get_tensor(stream, b->input_name, b->input_u8 ? U8 : F32, batch * b->input_bytes,
				 &stream->input, error)) ||
	    (status = get_tensor(stream, b->features_name, F32, batch * b->feature_dim * sizeof(float),
				 &stream->features, error)) ||
	    (status = get_tensor(stream, b->logits_name, F32, batch * b->class_count * sizeof(float), &stream->logits,
				 error)))
		return status;
	return KX_OK;
}

kx_status kx_model_stream_new(struct kx_model *model, struct kx_model_stream **ret, struct kx_error *error)
{
	struct kx_model_stream *stream = calloc(1, sizeof(*stream));

	if (!stream)
		return kx_error_nomem(error);
	stream->model = model;
	kx_status status = kx_runtime_status(
		ov_compiled_model_create_infer_request(model->compiled, &stream->request), error, "new stream");
	if (!status)
		status = get_tensors(stream, error);
	if (status) {
		kx_model_stream_free(stream);
		return kx_error_prefix(error, status, "%s", model->bundle->model_path);
	}
	*ret = stream;
	return KX_OK;
}

void kx_model_stream_free(struct kx_model_stream *stream)
{
	if (!stream)
		return;
	ov_tensor_free(stream->input);
	ov_tensor_free(stream->features);
	ov_tensor_free(stream->logits);
	ov_infer_request_free(stream->request);
	free(stream);
}

static kx_status fill(struct kx_model_stream *stream, const void *const *inputs, size_t count, struct kx_error *error)
{
	size_t bytes = stream->model->bundle->input_bytes;
	void *to = NULL;
	kx_status status = kx_runtime_status(ov_tensor_data(stream->input, &to), error, "input");

	if (status)
		return status;
	for (size_t i = 0; i < count; i++)
		memcpy((char *)to + i * bytes, inputs[i], bytes);
	memset((char *)to + count * bytes, 0, (stream->model->batch - count) * bytes);
	return KX_OK;
}

static kx_status take(ov_tensor_t *tensor, size_t floats, float *out, struct kx_error *error)
{
	void *from = NULL;
	kx_status status = kx_runtime_status(ov_tensor_data(tensor, &from), error, "output");

	if (!status)
		memcpy(out, from, floats * sizeof(float));
	return status;
}

static kx_status compute(struct kx_model_stream *stream, struct kx_error *error)
{
	if (kx_fault("model.infer"))
		return kx_error_set(error, KX_EIO, KX_ERROR_FATAL, "inference: injected fault");
	return kx_runtime_status(ov_infer_request_infer(stream->request), error, "inference");
}

kx_status kx_model_run(struct kx_model_stream *stream, const void *const *inputs, size_t count, float *features,
		       float *logits, struct kx_error *error)
{
	const struct kx_bundle *b = stream->model->bundle;
	kx_status status;

	if (count < 1 || count > stream->model->batch)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "%s: %zu items for a batch of %zu", b->name,
				    count, stream->model->batch);
	if ((status = fill(stream, inputs, count, error)) || (status = compute(stream, error)) ||
	    (status = take(stream->features, count * b->feature_dim, features, error)) ||
	    (status = take(stream->logits, count * b->class_count, logits, error)))
		return kx_error_prefix(error, status, "%s", b->name);
	return KX_OK;
}

kx_status kx_model_infer(struct kx_model_stream *stream, const void *const *inputs, size_t count, float *features,
			 float *scores, struct kx_error *error)
{
	const struct kx_bundle *b = stream->model->bundle;
	kx_status status = kx_model_run(stream, inputs, count, features, scores, error);

	if (status)
		return status;
	for (size_t i = 0; i < count; i++) {
		float *item = scores + i * b->class_count;
		if (b->activation == KX_ACTIVATION_SOFTMAX)
			kx_learn_softmax(item, b->class_count, item);
		else
			kx_learn_sigmoid(item, b->class_count, item);
	}
	return KX_OK;
}
