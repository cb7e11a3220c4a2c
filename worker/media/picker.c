#include "worker/media/picker.h"

/* Timestamps that jump would otherwise make one small file into endless copies of a frame. */
#define STAND_MAX_US (INT64_C(3600) * 1000000)

kx_status kx_picker_init(struct kx_picker *picker, struct kx_grid grid, uint64_t first, kx_picker_emit *emit,
			 void *ctx)
{
	*picker = (struct kx_picker){
		.grid = grid,
		.next = first,
		.held = av_frame_alloc(),
		.held_us = KX_NO_TIME,
		.emit = emit,
		.ctx = ctx,
	};
	return picker->held ? KX_OK : KX_ENOMEM;
}

void kx_picker_done(struct kx_picker *picker)
{
	av_frame_free(&picker->held);
}

bool kx_picker_satisfied(const struct kx_picker *picker)
{
	return !kx_grid_wants(&picker->grid, picker->next);
}

void kx_picker_forget(struct kx_picker *picker)
{
	av_frame_unref(picker->held);
	picker->held_us = KX_NO_TIME;
}

static bool as_expected(const struct kx_picker *picker, int64_t t, int64_t pts_us)
{
	if (!picker->expected)
		return true;
	int64_t expected = kx_select_expected(picker->expected, t);
	return expected == KX_NO_TIME || expected == pts_us;
}

/* Gives `frame` to every open grid point before until_us. */
static kx_status serve(struct kx_picker *picker, const AVFrame *frame, int64_t pts_us, int64_t until_us)
{
	while (!kx_picker_satisfied(picker)) {
		int64_t t = kx_grid_time(&picker->grid, picker->next);
		if (t >= until_us)
			break;
		if (t - pts_us > STAND_MAX_US) {
			picker->next = kx_grid_from(&picker->grid, until_us);
			picker->gap = true;
			break;
		}
		if (!as_expected(picker, t, pts_us)) {
			picker->missed = true;
			return KX_ECORRUPT;
		}
		kx_status status = picker->emit(picker->ctx, frame, picker->next, t, pts_us);
		if (status)
			return status;
		picker->next++;
	}
	return KX_OK;
}

kx_status kx_picker_push(struct kx_picker *picker, AVFrame *frame, int64_t pts_us)
{
	kx_status status;
	if (picker->held_us == KX_NO_TIME) {
		/* The first frame also stands for the time before it. */
		status = serve(picker, frame, pts_us, pts_us);
	} else if (pts_us <= picker->held_us) {
		av_frame_unref(frame);
		return KX_OK;
	} else {
		status = serve(picker, picker->held, picker->held_us, pts_us);
	}
	av_frame_unref(picker->held);
	av_frame_move_ref(picker->held, frame);
	picker->held_us = pts_us;
	return status;
}

kx_status kx_picker_advance(struct kx_picker *picker, int64_t until_us)
{
	if (picker->held_us == KX_NO_TIME)
		return KX_OK;
	return serve(picker, picker->held, picker->held_us, until_us);
}

kx_status kx_picker_finish(struct kx_picker *picker)
{
	/* The first frame is there for k = 0 even when it is presented later than that. */
	if (picker->held_us == KX_NO_TIME)
		return KX_OK;
	return serve(picker, picker->held, picker->held_us, picker->held_us + 1);
}
