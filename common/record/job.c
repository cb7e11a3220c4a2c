#include "common/record/job.h"

#include "common/record/support.h"
#include "proto/job.pb-c.h"

static Kinodex__V1__Job *kx_job_write(struct kx_writer *w, const struct kx_job *job)
{
	Kinodex__V1__Job *m = KX_WRITER_NEW(w, job);

	if (m == NULL)
		return NULL;
	m->version = KX_FORMAT_VERSION;
	m->run_id = job->run_id;
	m->video_id = job->video_id;
	m->generation = job->generation;
	m->part = job->part;
	m->parts = job->parts;
	m->tracks = job->tracks;
	m->source = kx_write_path(job->source);
	m->content_sha256 = kx_write_sha(job->content_sha256);
	m->content_bytes = job->content_bytes;
	m->start_us = job->start_us;
	m->end_us = job->end_us;
	m->fps = job->fps;
	m->decode_mode = job->decode_mode;
	m->decode_tolerance_us = job->decode_tolerance_us;
	m->moment_us = job->moment_us;
	m->recipe_sha256 = kx_write_sha(job->recipe_sha256);
	m->attempt = job->attempt;
	m->wall_limit_ms = job->wall_limit_ms;
	m->cpu_limit_ms = job->cpu_limit_ms;
	m->memory_limit_bytes = job->memory_limit_bytes;
	return m;
}

static void job_read_span(struct kx_reader *r, const Kinodex__V1__Job *m, struct kx_job *job)
{
	job->moment_us = kx_read_moment_us(r, m->moment_us);
	job->start_us = kx_read_us(r, "start_us", m->start_us);
	job->end_us = kx_read_us(r, "end_us", m->end_us);
	if (job->end_us != 0 && job->end_us <= job->start_us)
		kx_reader_fail(r, KX_ECORRUPT, "end_us", "not after start_us");
	if (job->moment_us != 0 && job->start_us % job->moment_us != 0)
		kx_reader_fail(r, KX_ECORRUPT, "start_us", "not a multiple of moment_us");
}

static void kx_job_read(struct kx_reader *r, const Kinodex__V1__Job *m, struct kx_job *job)
{
	kx_read_version(r, m->version);
	job->run_id = kx_read_string(r, "run_id", m->run_id, 1, KX_ID_MAX);
	job->video_id = kx_read_string(r, "video_id", m->video_id, 1, KX_ID_MAX);
	job->generation = m->generation;
	job->parts = kx_read_u32(r, "parts", m->parts, 1, KX_PARTS_MAX);
	job->part = kx_read_u32(r, "part", m->part, 0, job->parts - 1);
	job->tracks = kx_read_tracks(r, m->tracks);
	job->source = kx_read_path(r, "source", m->source, 1);
	kx_read_optional_sha(r, "content_sha256", m->content_sha256, job->content_sha256);
	job->content_bytes = m->content_bytes;
	job_read_span(r, m, job);
	job->fps = kx_read_fps(r, m->fps);
	job->decode_mode = kx_read_decode_mode(r, m->decode_mode);
	job->decode_tolerance_us = kx_read_decode_tolerance(r, job->decode_mode, m->decode_tolerance_us);
	kx_read_sha(r, "recipe_sha256", m->recipe_sha256, job->recipe_sha256);
	job->attempt = kx_read_u32(r, "attempt", m->attempt, 1, UINT32_MAX);
	job->wall_limit_ms = m->wall_limit_ms;
	job->cpu_limit_ms = m->cpu_limit_ms;
	job->memory_limit_bytes = m->memory_limit_bytes;
}

static void kx_job_clear(struct kx_job *job)
{
	free(job->run_id);
	free(job->video_id);
	free(job->source);
}

KX_RECORD_DEFINE(kx_job, Job, job);
