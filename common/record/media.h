/* What worker and decoder child say to each other, and what a probe finds. Layer: record. */
#ifndef KX_RECORD_MEDIA_H
#define KX_RECORD_MEDIA_H

#include "common/record/record.h"

enum kx_decode_purpose { KX_DECODE_PROBE = 1, KX_DECODE_SAMPLE, KX_DECODE_INSPECT };

#define KX_PROBE_STREAMS_MAX 256u

struct kx_decode_request {
	uint64_t ticket;
	enum kx_decode_purpose purpose;
	uint32_t tracks;
	double fps;
	enum kx_decode_mode decode_mode;
	uint64_t decode_tolerance_us; /* of KX_DECODE_TOLERANT, else 0 */
	uint64_t start_us;
	uint64_t end_us; /* 0: to the end */
	uint32_t width;  /* of the frames wanted */
	uint32_t height;
	uint32_t ring_slots;
	uint32_t slot_bytes;
	uint64_t wall_limit_ms;
	uint64_t cpu_limit_ms;
	uint64_t memory_limit_bytes;
	char *endpoint;  /* ZeroMQ, where the child connects */
	char *name;      /* of the file, for messages only */
};

KX_RECORD_FUNCTIONS(kx_decode_request);

struct kx_probe_info {
	char *container;
	uint64_t duration_us; /* 0: not said */
	char *video_codec;    /* "" when there is none */
	uint32_t width;       /* as presented: after rotation and sample aspect ratio */
	uint32_t height;
	double frame_rate;
	char *audio_codec;
	uint32_t sample_rate;
	uint32_t channels;
	bool splittable;      /* a seek gives the same frames as decoding from the start */
	bool has_visual;
	bool has_audio;
};

/* One stream of a file, in words for people. What is not said is 0 or ""; NULL counts as "". */
struct kx_probe_stream {
	uint32_t index;
	char *kind;    /* "video", "audio", "subtitle", "data", "attachment", "other" */
	char *codec;
	char *profile;
	bool chosen;
	char *note;    /* why it was chosen or not */
	uint64_t duration_us; /* as the container says */
	int64_t start_us;     /* on the container's own clock */
	uint64_t bit_rate;
	uint64_t packets;     /* of a chosen stream */
	uint64_t key_packets;
	uint32_t width;       /* as coded */
	uint32_t height;
	uint32_t aspect_num;  /* of a sample */
	uint32_t aspect_den;
	uint32_t rotation;    /* degrees clockwise, after mirroring left to right */
	bool mirrored;
	double frame_rate;
	char *pixel_format;
	char *range;
	char *matrix;
	char *primaries;
	char *transfer;
	char *field_order;
	uint32_t sample_rate;
	uint32_t channels;
	char *layout;
	char *sample_format;
};

/* What an inspection finds beside kx_probe_info. */
struct kx_probe_detail {
	uint32_t stream_count;
	struct kx_probe_stream *streams; /* [stream_count] as the container numbers them */
	uint64_t packets_us;             /* how long the chosen stream is by its packets */
	char *plan;                      /* what exact sampling may leave out, or why nothing */
};

struct kx_sample {
	uint64_t index;    /* on the sampling grid of its track: frame k is at k/fps, patch k at k x 0.48 s */
	uint64_t pts_us;
	uint64_t error_us; /* |grid time - pts| */
	uint32_t slot;     /* of the shared ring */
};

struct kx_decode_end {
	enum kx_reason reason; /* KX_REASON_NONE when it went well */
	bool retriable;
	char *message;
	uint64_t visual_us;
	uint64_t audio_us;
	bool truncated;
	uint64_t frames_decoded;
	uint64_t frames_sampled;
	uint64_t patches;
};

enum kx_decode_event_kind { KX_DECODE_OPENED = 1, KX_DECODE_FRAME, KX_DECODE_PATCH, KX_DECODE_END, KX_DECODE_DETAIL };

struct kx_decode_event {
	uint64_t ticket;
	enum kx_decode_event_kind kind;
	struct kx_probe_info opened;
	struct kx_sample sample; /* frame, patch */
	struct kx_decode_end end;
	struct kx_probe_detail detail;
};

KX_RECORD_FUNCTIONS(kx_decode_event);

/* For those who keep a probe's answer apart from its event. Copies strings. */
kx_status kx_probe_info_copy(const struct kx_probe_info *from, struct kx_probe_info *to) KX_MUST_CHECK;
void kx_probe_info_done(struct kx_probe_info *info);
void kx_probe_detail_done(struct kx_probe_detail *detail);

#endif
