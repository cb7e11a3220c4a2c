/* Golden pairs: does the model, as compiled here, say what it said where the bundle was made? */
#include <math.h>
#include <stdlib.h>

#include "common/base/fs.h"
#include "worker/model/runtime.h"

static double floor_for(enum kx_precision precision)
{
	return precision == KX_PRECISION_BF16 ? 0.995 : 0.999;
}

/* NaN when either side has no length or is not finite. */
static double cosine(const float *a, const float *b, size_t len)
{
	double ab = 0, aa = 0, bb = 0;

	for (size_t i = 0; i < len; i++) {
		ab += (double)a[i] * (double)b[i];
		aa += (double)a[i] * (double)a[i];
		bb += (double)b[i] * (double)b[i];
	}
	return ab / sqrt(aa * bb);
}

static kx_status read_exactly(const char *path, size_t bytes, struct kx_buf *ret, struct kx_error *error)
{
	kx_status status = kx_fs_read(path, bytes, ret, error);

	if (status == KX_OK && ret->len != bytes)
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "%s: %zu bytes instead of %zu", path, ret->len,
				    bytes);
	return status;
}

/* Compares one output with its file. Written so that NaN fails. */
static kx_status compare(const char *path, const float *got, size_t len, double least, double *lowest,
			 struct kx_error *error)
{
	struct kx_buf wanted KX_CLEANUP(kx_buf_done) = {0};
	kx_status status = read_exactly(path, len * sizeof(float), &wanted, error);

	if (status)
		return status;
	double found = cosine(got, (const float *)(const void *)wanted.data, len);
	if (!(found >= least))
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL,
				    "%s: the model gives something else here (cosine %.5f, at least %.3f is needed)", path,
				    found, least);
	*lowest = fmin(*lowest, found);
	return KX_OK;
}

static kx_status check_pair(struct kx_model_stream *stream, const struct kx_bundle *b, const struct kx_golden *golden,
			    double least, double *lowest, struct kx_error *error)
{
	struct kx_buf input KX_CLEANUP(kx_buf_done) = {0};
	float *features KX_CLEANUP(kx_cleanup_free) = calloc(b->feature_dim, sizeof(float));
	float *logits KX_CLEANUP(kx_cleanup_free) = calloc(b->class_count, sizeof(float));
	kx_status status;

	if (!features || !logits)
		return kx_error_nomem(error);
	if ((status = read_exactly(golden->input, b->input_bytes, &input, error)) ||
	    (status = kx_model_run(stream, (const void *[]){input.data}, 1, features, logits, error)) ||
	    (status = compare(golden->features, features, b->feature_dim, least, lowest, error)) ||
	    (status = compare(golden->logits, logits, b->class_count, least, lowest, error)))
		return status;
	return KX_OK;
}

kx_status kx_model_check(struct kx_model *model, double *ret_cosine, struct kx_error *error)
{
	const struct kx_bundle *b = kx_model_bundle(model);
	double least = floor_for(kx_model_precision(model)), lowest = 1.0;
	struct kx_model_stream *stream = NULL;
	kx_status status = kx_model_stream_new(model, &stream, error);

	for (size_t i = 0; status == KX_OK && i < b->golden_count; i++)
		status = check_pair(stream, b, &b->golden[i], least, &lowest, error);
	kx_model_stream_free(stream);
	if (status)
		return status;
	*ret_cosine = lowest;
	return KX_OK;
}
