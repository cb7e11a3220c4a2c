/* Which frame each grid point gets, over the frames as the decoder presents them. Layer: worker/media.
 *
 * A frame stands from its own time until the next one's, so it can only be handed on when the next one, or the end,
 * is known: the picker holds one frame. This is the only place that decides; selective decoding (select.h) leaves
 * out frames that would be passed over here, and says what it expects, so that a frame which did not come out is
 * noticed before a wrong one is handed on in its place. */
#ifndef KX_MEDIA_PICKER_H
#define KX_MEDIA_PICKER_H

#include <libavutil/frame.h>

#include "common/base/error.h"
#include "worker/media/select.h"

typedef kx_status kx_picker_emit(void *ctx, const AVFrame *frame, uint64_t k, int64_t grid_us, int64_t pts_us);

struct kx_picker {
	struct kx_grid grid;
	uint64_t next;    /* the first grid point that has no frame yet */
	AVFrame *held;
	int64_t held_us;  /* KX_NO_TIME: nothing is held */
	bool gap;         /* grid points were left out: a frame stood for longer than is believed */
	bool missed;      /* the frame that was expected is not at hand */
	const struct kx_select_group *expected; /* borrowed; NULL: every frame comes in */
	/* Where grid points have a tolerance: the group after it, and the one before it while frames of that are still
	 * to come out of the decoder. Both may be NULL. */
	const struct kx_select_group *follows;
	const struct kx_select_group *before;
	kx_picker_emit *emit;
	void *ctx;
};

kx_status kx_picker_init(struct kx_picker *picker, struct kx_grid grid, uint64_t first, kx_picker_emit *emit,
			 void *ctx) KX_MUST_CHECK;
void kx_picker_done(struct kx_picker *picker);

/* All of these return what emit returned when it failed, and KX_ECORRUPT with missed set when another frame than the
 * expected one is at hand; the grid point then stays open. */

/* Takes the frame's reference. Frames that go back in time are passed over. */
kx_status kx_picker_push(struct kx_picker *picker, AVFrame *frame, int64_t pts_us) KX_MUST_CHECK;
/* No frame before until_us is to come. */
kx_status kx_picker_advance(struct kx_picker *picker, int64_t until_us) KX_MUST_CHECK;
/* No frame is to come at all. last_us: the file's last frame is shown then, though it need not have come in;
 * KX_NO_TIME: it did. Grid points exist up to it. */
kx_status kx_picker_finish(struct kx_picker *picker, int64_t last_us) KX_MUST_CHECK;

/* For grids with a tolerance, while `expected` is set: gives the frame to the grid points that chose it
 * (kx_select_choice()), and lets go of it. */
kx_status kx_picker_push_chosen(struct kx_picker *picker, AVFrame *frame, int64_t pts_us) KX_MUST_CHECK;
/* All of the expected group came out: KX_ECORRUPT when a grid point is still open that chose one of its frames. */
kx_status kx_picker_check_chosen(struct kx_picker *picker) KX_MUST_CHECK;

/* For key frames only: each grid point gets the nearer of two frames in a row, the earlier when it is as near. */
kx_status kx_picker_push_nearest(struct kx_picker *picker, AVFrame *frame, int64_t pts_us) KX_MUST_CHECK;

void kx_picker_forget(struct kx_picker *picker); /* lets go of the held frame */
bool kx_picker_satisfied(const struct kx_picker *picker); /* every wanted grid point has its frame */

#endif
