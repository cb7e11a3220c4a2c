/* The driver with its test hook: kx_media_sample() is this with everything on. Layer: worker/media. */
#ifndef KX_MEDIA_SAMPLE_H
#define KX_MEDIA_SAMPLE_H

#include "worker/media/media.h"

struct kx_sample_options {
	bool decode_all; /* no selective decoding: what it must equal */
};

kx_status kx_sample_run(int fd, const struct kx_decode_request *request, const struct kx_media_sink *sink,
			const struct kx_sample_options *options, struct kx_decode_end *ret_end,
			struct kx_error *error) KX_MUST_CHECK;

#endif
