/* One full sample of every record and kind, for the tests of this folder: no field of it is 0 on the wire. */
#ifndef KX_RECORD_TEST_SAMPLES_H
#define KX_RECORD_TEST_SAMPLES_H

#include <protobuf-c/protobuf-c.h>

#include "common/record/event.h"
#include "common/record/job.h"
#include "common/record/media.h"
#include "common/record/moment.h"
#include "common/record/query.h"
#include "common/record/result.h"
#include "common/record/video.h"

extern struct kx_job sample_job;
extern struct kx_moment sample_moment;
extern struct kx_result sample_plan;
extern struct kx_result sample_result_moment;
extern struct kx_result sample_part_end;
extern struct kx_result sample_delete;
extern struct kx_result sample_copy;
extern struct kx_event sample_finished;
extern struct kx_event sample_failed;
extern struct kx_event sample_stored, sample_deleted;
extern struct kx_dead_letter sample_dead_letter;
extern struct kx_video_result sample_video_result;
extern struct kx_video_record sample_video_record;
extern struct kx_pending_video sample_pending;
extern struct kx_input sample_input;
extern struct kx_query_request sample_similar;
extern struct kx_query_request sample_batch, sample_videos, sample_schema, sample_care;
extern struct kx_query_request sample_video_query;
extern struct kx_query_request sample_stats_query;
extern struct kx_query_reply sample_reply;
extern struct kx_decode_request sample_decode_request;
extern struct kx_decode_event sample_opened;
extern struct kx_decode_event sample_frame;
extern struct kx_decode_event sample_detail;
extern struct kx_decode_event sample_patch;
extern struct kx_decode_event sample_end;

/* The same functions for all, whatever the type. */
struct record_case {
	const char *name;
	const void *sample;
	const ProtobufCMessageDescriptor *descriptor;
	kx_status (*pack)(const void *record, struct kx_buf *out);
	kx_status (*unpack)(const void *bytes, size_t len, void **ret, struct kx_error *error);
	void (*release)(void *record);
};

extern const struct record_case record_cases[];
extern const size_t record_case_count;

/* For use inside cmocka tests: they fail the test rather than return. */
struct kx_buf sample_pack(const struct record_case *c, const void *record);
const struct record_case *sample_case_of(const void *sample);
/* Expects unpack to fail with `want`, class POISON, and a message that contains `said`. */
void sample_assert_refused(const struct record_case *c, const void *bytes, size_t len, kx_status want,
			   const char *said);

#endif
