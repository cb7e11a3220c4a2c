/* Packets of the chosen streams, with a look ahead to find time 0 and an exact seek. Layer: worker/media. */
#ifndef KX_MEDIA_PACKETS_H
#define KX_MEDIA_PACKETS_H

#include "worker/media/input.h"
#include "worker/media/picture.h"
#include "worker/media/vops.h"

/* Packets read ahead and not yet handed out. */
struct kx_packet_list {
	AVPacket **packets;
	size_t first;
	size_t count;
	size_t cap;
	size_t bytes;
};

struct kx_packets {
	struct kx_input *input; /* borrowed */
	struct kx_packet_list ahead;
	struct kx_packet_list demuxed; /* read before it was known that they have to go through vops */
	struct kx_vops vops;           /* open where pictures get their times there */
	struct kx_picture_parser parser; /* of the video stream */
	int64_t origin;         /* time 0 in ticks of origin_base */
	AVRational origin_base;
	bool has_pts;           /* the video's packets say when they are presented */
	bool has_dts;           /* or at least in which order and when they are decoded */
	bool no_skip;           /* the index does not keep its word */
	bool damaged;           /* the demuxer met errors */
	unsigned errors_in_row;
};

/* Reads ahead until time 0 is known. The input must outlive it. */
kx_status kx_packets_open(struct kx_packets *packets, struct kx_input *input, struct kx_error *error) KX_MUST_CHECK;
void kx_packets_done(struct kx_packets *packets);

/* Moves the next packet into *packet. KX_ENOTFOUND: the end. KX_EIO: the descriptor failed. KX_ENOMEM. */
kx_status kx_packets_next(struct kx_packets *packets, AVPacket *packet, struct kx_error *error) KX_MUST_CHECK;

/* So that the next video packet is one where decoding can start, presented at or before at_us. */
kx_status kx_packets_seek(struct kx_packets *packets, int64_t at_us, struct kx_error *error) KX_MUST_CHECK;

/* When the container's index has a key frame: Matroska's by presentation, others by decoding. */
int64_t kx_packets_index_time(const struct kx_packets *packets, const AVPacket *packet);

/* For a reader of pictures alone that needs nothing between the key frame that the index has at `from`, which it has
 * read, and a later one: goes on at the last key frame of the container's index that is presented at or before at_us, or, where
 * at_us is INT64_MAX, at the first one after it. *ret_skipped: the next packet is another than it would have
 * been: that key frame, or, when the index did not keep its word, the one of `from` again. Does nothing where the
 * way is too short to be worth it, or goes beyond the end of a file that was cut. */
kx_status kx_packets_skip(struct kx_packets *packets, int64_t from, int64_t at_us, bool *ret_skipped,
			  struct kx_error *error) KX_MUST_CHECK;

/* Ticks of a stream as microseconds from time 0; KX_NO_TIME for none or nonsense. */
int64_t kx_packets_time(const struct kx_packets *packets, int64_t ticks, AVRational base);

#endif
