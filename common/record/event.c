#include "common/record/event.h"

#include "common/record/support.h"
#include "proto/event.pb-c.h"

static Kinodex__V1__PartFinished *finished_write(struct kx_writer *w, const struct kx_event *event)
{
	Kinodex__V1__PartFinished *m = KX_WRITER_NEW(w, part_finished);

	if (m == NULL)
		return NULL;
	m->part = event->part;
	m->attempt = event->attempt;
	m->media_us = event->media_us;
	m->decode_cpu_us = event->decode_cpu_us;
	m->wall_us = event->wall_us;
	return m;
}

static void finished_read(struct kx_reader *r, const Kinodex__V1__PartFinished *m, struct kx_event *event)
{
	event->part = kx_read_u32(r, "part", m->part, 0, KX_PARTS_MAX - 1);
	event->attempt = kx_read_u32(r, "attempt", m->attempt, 1, UINT32_MAX);
	event->media_us = kx_read_us(r, "media_us", m->media_us);
	event->decode_cpu_us = kx_read_us(r, "decode_cpu_us", m->decode_cpu_us);
	event->wall_us = kx_read_us(r, "wall_us", m->wall_us);
}

static Kinodex__V1__PartFailed *failed_write(struct kx_writer *w, const struct kx_event *event)
{
	Kinodex__V1__PartFailed *m = KX_WRITER_NEW(w, part_failed);

	if (m == NULL)
		return NULL;
	m->part = event->part;
	m->attempt = event->attempt;
	m->reason = event->reason;
	m->retriable = event->retriable;
	m->message = event->message;
	m->decode_cpu_us = event->decode_cpu_us;
	return m;
}

static void failed_read(struct kx_reader *r, const Kinodex__V1__PartFailed *m, struct kx_event *event)
{
	event->part = kx_read_u32(r, "part", m->part, 0, KX_PARTS_MAX - 1);
	event->attempt = kx_read_u32(r, "attempt", m->attempt, 1, UINT32_MAX);
	event->reason = kx_read_reason(r, m->reason, KX_REASON_NONE + 1);
	event->retriable = m->retriable;
	event->message = kx_read_string(r, "message", m->message, 0, KX_TEXT_MAX);
	event->decode_cpu_us = kx_read_us(r, "decode_cpu_us", m->decode_cpu_us);
}

static Kinodex__V1__VideoStored *stored_write(struct kx_writer *w, const struct kx_event *event)
{
	Kinodex__V1__VideoStored *m = KX_WRITER_NEW(w, video_stored);

	if (m == NULL)
		return NULL;
	m->visual_us = event->visual_us;
	m->audio_us = event->audio_us;
	m->duration_us = event->duration_us;
	m->truncated = event->truncated;
	m->stored_bytes = event->stored_bytes;
	m->missing_source = event->missing_source;
	return m;
}

static void stored_read(struct kx_reader *r, const Kinodex__V1__VideoStored *m, struct kx_event *event)
{
	event->visual_us = kx_read_us(r, "visual_us", m->visual_us);
	event->audio_us = kx_read_us(r, "audio_us", m->audio_us);
	event->duration_us = kx_read_us(r, "duration_us", m->duration_us);
	event->truncated = m->truncated;
	event->stored_bytes = m->stored_bytes;
	event->missing_source = m->missing_source;
}

static Kinodex__V1__VideoDeleted *deleted_write(struct kx_writer *w)
{
	return KX_WRITER_NEW(w, video_deleted);
}

static Kinodex__V1__Event *kx_event_write(struct kx_writer *w, const struct kx_event *event)
{
	Kinodex__V1__Event *m = KX_WRITER_NEW(w, event);

	if (m == NULL)
		return NULL;
	m->version = KX_FORMAT_VERSION;
	m->run_id = event->run_id;
	m->video_id = event->video_id;
	m->generation = event->generation;
	switch (event->kind) {
	case KX_EVENT_FINISHED:
		m->body_case = KINODEX__V1__EVENT__BODY_FINISHED;
		m->finished = finished_write(w, event);
		return m;
	case KX_EVENT_FAILED:
		m->body_case = KINODEX__V1__EVENT__BODY_FAILED;
		m->failed = failed_write(w, event);
		return m;
	case KX_EVENT_STORED:
		m->body_case = KINODEX__V1__EVENT__BODY_STORED;
		m->stored = stored_write(w, event);
		return m;
	case KX_EVENT_DELETED:
		m->body_case = KINODEX__V1__EVENT__BODY_DELETED;
		m->deleted = deleted_write(w);
		return m;
	}
	kx_writer_fail(w, KX_EINVAL);
	return m;
}

static void event_read_body(struct kx_reader *r, const Kinodex__V1__Event *m, struct kx_event *event)
{
	switch (m->body_case) {
	case KINODEX__V1__EVENT__BODY_FINISHED:
		event->kind = KX_EVENT_FINISHED;
		finished_read(r, m->finished, event);
		return;
	case KINODEX__V1__EVENT__BODY_FAILED:
		event->kind = KX_EVENT_FAILED;
		failed_read(r, m->failed, event);
		return;
	case KINODEX__V1__EVENT__BODY_STORED:
		event->kind = KX_EVENT_STORED;
		stored_read(r, m->stored, event);
		return;
	case KINODEX__V1__EVENT__BODY_DELETED:
		event->kind = KX_EVENT_DELETED;
		return;
	default:
		kx_reader_fail(r, KX_ECORRUPT, NULL, "neither finished, failed, stored nor deleted");
	}
}

static void kx_event_read(struct kx_reader *r, const Kinodex__V1__Event *m, struct kx_event *event)
{
	kx_read_version(r, m->version);
	event->run_id = kx_read_string(r, "run_id", m->run_id, 0, KX_ID_MAX);
	event->video_id = kx_read_string(r, "video_id", m->video_id, 1, KX_ID_MAX);
	event->generation = m->generation;
	if (kx_reader_enter(r, "body", m)) {
		event_read_body(r, m, event);
		kx_reader_leave(r);
	}
}

static void kx_event_clear(struct kx_event *event)
{
	free(event->run_id);
	free(event->video_id);
	free(event->message);
}

KX_RECORD_DEFINE(kx_event, Event, event);

static Kinodex__V1__DeadLetter *kx_dead_letter_write(struct kx_writer *w, const struct kx_dead_letter *letter)
{
	Kinodex__V1__DeadLetter *m = KX_WRITER_NEW(w, dead_letter);

	if (m == NULL)
		return NULL;
	m->version = KX_FORMAT_VERSION;
	m->video_id = letter->video_id;
	m->source = kx_write_path(letter->source);
	m->reason = letter->reason;
	m->message = letter->message;
	m->attempts = letter->attempts;
	m->generation = letter->generation;
	m->at_ms = letter->at_ms;
	m->run_id = letter->run_id;
	m->software = letter->software;
	return m;
}

static void kx_dead_letter_read(struct kx_reader *r, const Kinodex__V1__DeadLetter *m,
				struct kx_dead_letter *letter)
{
	kx_read_version(r, m->version);
	letter->video_id = kx_read_string(r, "video_id", m->video_id, 1, KX_ID_MAX);
	letter->source = kx_read_path(r, "source", m->source, 0);
	letter->reason = kx_read_reason(r, m->reason, KX_REASON_NONE + 1);
	letter->message = kx_read_string(r, "message", m->message, 0, KX_TEXT_MAX);
	letter->attempts = m->attempts;
	letter->generation = m->generation;
	letter->at_ms = m->at_ms;
	letter->run_id = kx_read_string(r, "run_id", m->run_id, 0, KX_ID_MAX);
	letter->software = kx_read_string(r, "software", m->software, 0, KX_TEXT_MAX);
}

static void kx_dead_letter_clear(struct kx_dead_letter *letter)
{
	free(letter->video_id);
	free(letter->source);
	free(letter->message);
	free(letter->run_id);
	free(letter->software);
}

KX_RECORD_DEFINE(kx_dead_letter, DeadLetter, dead_letter);
