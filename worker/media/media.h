/* Files to frames and sound: demux, decode, sample by presentation time, scale, log-mel. Layer: worker/media.
 *
 * Runs inside a decoder child: one call, one file, one thread. It trusts nothing in the file. libav's types do not
 * leave this folder.
 *
 * Time. 0 is the video's first presented instant: the container's start time (else the first timestamp) of the video
 * stream, of the audio stream where there is no video; both tracks share it. Grid times are k / fps seconds for
 * frames and k x 0.48 s for audio patches. Frame k is the last frame with pts <= k/fps (the first frame for k = 0);
 * it exists while k/fps is not after the last frame's pts. Where timestamps say that a frame stands for more than an
 * hour, the grid times after that hour have no frame, and truncated is set.
 * That is decode mode exact. With tol=x, grid time t gets, of the frames that are within x of it, the one that is
 * cheapest to decode, and the exact one where there is none (select.h has the rule); with keyframe, the nearest key
 * frame. There are as many frames in each mode. Where packets have no presentation times or the codec's references are
 * not read, tol is exact, and where they have no times at all, keyframe is, too.
 *
 * Spans (start_us, end_us) choose among the frames; sound is whole in every request for it, so only a request for
 * pictures alone seeks. In kx_decode_end, visual_us is how much of the span has pictures and audio_us how long the
 * sound is from time 0, silence that was put in included. A span after the video's end is empty, not a failure.
 */
#ifndef KX_WORKER_MEDIA_MEDIA_H
#define KX_WORKER_MEDIA_MEDIA_H

#include "common/base/error.h"
#include "common/record/media.h"

/* Log-mel patch as YAMNet takes it: 16 kHz mono, periodic Hann 25 ms, hop 10 ms, FFT 512 magnitude, 64 HTK mel bands
 * 125-7500 Hz, ln(mel + 0.001); 96 hops a patch, a new patch every 48. */
#define KX_PATCH_HOPS 96
#define KX_PATCH_BANDS 64
#define KX_PATCH_STEP_US 480000u
#define KX_PATCH_BYTES (KX_PATCH_HOPS * KX_PATCH_BANDS * 4u)

/* Names the exact preprocessing of this folder; part of every space. Change it when pixels or patches change. */
#define KX_MEDIA_PREPROCESS "area-yuv-rgb8/2 logmel16k/1"

struct kx_media_sink {
	void *ctx;
	/* Once, when streams are known. */
	kx_status (*opened)(void *ctx, const struct kx_probe_info *info);
	/* Memory for the next frame (width*height*3 bytes, RGB rows) or patch (KX_PATCH_BYTES, f32 [96][64]);
	 * may block for back-pressure. Each acquire is followed by the frame or patch that fills it. */
	kx_status (*acquire)(void *ctx, void **ret_memory);
	kx_status (*frame)(void *ctx, const struct kx_sample *sample); /* sample->slot is the sink's to fill in */
	kx_status (*patch)(void *ctx, const struct kx_sample *sample);
};

/* What is in the file. fd, borrowed: a file, or the reader's end of a stream (common/fetch/stream.h). On failure *ret_reason says why in the ledger's terms and the error
 * names `name`. KX_ECORRUPT, KX_EUNSUPPORTED, KX_ETOOBIG, KX_EIO. */
kx_status kx_media_probe(int fd, const char *name, struct kx_probe_info *ret_info, enum kx_reason *ret_reason,
			 struct kx_error *error) KX_MUST_CHECK;

/* The same and every stream in words; reads the file to its end. ret_detail: kx_probe_detail_done(). */
kx_status kx_media_inspect(int fd, const char *name, struct kx_probe_info *ret_info, struct kx_probe_detail *ret_detail,
			   enum kx_reason *ret_reason, struct kx_error *error) KX_MUST_CHECK;

/* Decodes and samples as the request says (tracks, fps, span, size). Fills ret_end in every case, also on failure;
 * what was sunk before stays sunk. A file that ends early is no failure: truncated is set and the covered times say
 * how much there was. A failing sink stops it and its status is returned. ret_end->message is the caller's to free
 * with kx_media_end_done(). */
kx_status kx_media_sample(int fd, const struct kx_decode_request *request, const struct kx_media_sink *sink,
			  struct kx_decode_end *ret_end, struct kx_error *error) KX_MUST_CHECK;
void kx_media_end_done(struct kx_decode_end *end);

/* Once a process, before any other call: whitelists, log level, caps on allocation. */
void kx_media_init(void);
/* For a process that forks others to decode, after kx_media_init(): what libav makes once a process, the tables of the
 * commonest codecs among them, is made now and not in each of them again. 4 ms, which the third child has won back. */
void kx_media_warm(void);

/* "libavcodec 59.37.100 libavformat ..." */
const char *kx_media_software(void);

#endif
