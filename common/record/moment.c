#include "common/record/moment.h"

#include <float.h>

#include "common/record/nested.h"

Kinodex__V1__Moment *kx_moment_write(struct kx_writer *w, const struct kx_moment *moment)
{
	Kinodex__V1__Moment *m = KX_WRITER_NEW(w, moment);

	if (m == NULL)
		return NULL;
	m->version = KX_FORMAT_VERSION;
	m->modality = moment->modality;
	m->index = moment->index;
	m->space = moment->space;
	m->count = moment->count;
	m->dim = moment->dim;
	m->n_pts_us = moment->count;
	m->pts_us = moment->pts_us;
	m->features = kx_write_bytes(moment->features, (size_t)moment->count * moment->dim);
	m->n_lo = moment->count;
	m->lo = moment->lo;
	m->n_step = moment->count;
	m->step = moment->step;
	m->n_class_ids = moment->class_count;
	m->class_ids = moment->class_ids;
	m->n_class_scores = moment->class_count;
	m->class_scores = moment->class_scores;
	m->embedding = kx_write_bytes(moment->embedding, moment->dim);
	m->embedding_scale = moment->embedding_scale;
	m->max_time_error_us = moment->max_time_error_us;
	m->n_time_error_us = moment->time_error_us != NULL ? moment->count : 0;
	m->time_error_us = moment->time_error_us;
	return m;
}

void kx_moment_read(struct kx_reader *r, const Kinodex__V1__Moment *m, struct kx_moment *moment)
{
	kx_read_version(r, m->version);
	moment->modality = kx_read_modality(r, m->modality);
	moment->index = kx_read_u32(r, "index", m->index, 0, KX_MOMENTS_MAX - 1);
	moment->space = kx_read_string(r, "space", m->space, 1, KX_SPACE_MAX - 1);
	moment->count = kx_read_u32(r, "count", m->count, 1, KX_MOMENT_ROWS_MAX);
	moment->dim = kx_read_dim(r, "dim", m->dim);
	moment->pts_us = kx_read_us_array(r, "pts_us", m->pts_us, m->n_pts_us, moment->count);
	moment->features = kx_read_bytes(r, "features", m->features, (size_t)moment->count * moment->dim);
	moment->lo = kx_read_floats(r, "lo", m->lo, m->n_lo, moment->count, -FLT_MAX, FLT_MAX);
	moment->step = kx_read_floats(r, "step", m->step, m->n_step, moment->count, 0.0f, FLT_MAX);
	kx_read_classes(r, m->class_ids, m->n_class_ids, m->class_scores, m->n_class_scores,
			&moment->class_count, &moment->class_ids, &moment->class_scores);
	moment->embedding = kx_read_bytes(r, "embedding", m->embedding, moment->dim);
	moment->embedding_scale =
		(float)kx_read_double(r, "embedding_scale", (double)m->embedding_scale, 0.0, (double)FLT_MAX);
	moment->max_time_error_us = kx_read_us(r, "max_time_error_us", m->max_time_error_us);
	if (m->n_time_error_us > 0)
		moment->time_error_us = kx_read_us_array(r, "time_error_us", m->time_error_us, m->n_time_error_us,
							 moment->count);
}

void kx_moment_clear(struct kx_moment *moment)
{
	free(moment->space);
	free(moment->pts_us);
	free(moment->features);
	free(moment->lo);
	free(moment->step);
	free(moment->class_ids);
	free(moment->class_scores);
	free(moment->embedding);
	free(moment->time_error_us);
}

KX_RECORD_DEFINE(kx_moment, Moment, moment);
