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

/* One grid point's frame. */
static kx_status give(struct kx_picker *picker, const AVFrame *frame, int64_t t, int64_t pts_us)
{
	kx_status status = picker->emit(picker->ctx, frame, picker->next, t, pts_us);
	if (!status)
		picker->next++;
	return status;
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
		kx_status status = give(picker, frame, t, pts_us);
		if (status)
			return status;
	}
	return KX_OK;
}

static void hold(struct kx_picker *picker, AVFrame *frame, int64_t pts_us)
{
	av_frame_unref(picker->held);
	av_frame_move_ref(picker->held, frame);
	picker->held_us = pts_us;
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
	hold(picker, frame, pts_us);
	return status;
}

/* When the open grid point's frame is shown; KX_NO_TIME: there is no such point. */
static int64_t open_choice(const struct kx_picker *picker)
{
	if (kx_picker_satisfied(picker))
		return KX_NO_TIME;
	int64_t t = kx_grid_time(&picker->grid, picker->next);
	if (picker->before && t < kx_select_start(picker->expected))
		return kx_select_choice(picker->before, picker->expected, &picker->grid, t);
	return kx_select_choice(picker->expected, picker->follows, &picker->grid, t);
}

/* Grid points that are further from every frame than is believed get none. */
static void leave_out(struct kx_picker *picker, int64_t pts_us)
{
	int64_t t = kx_grid_time(&picker->grid, picker->next);
	uint64_t to = picker->next + 1;
	if (t < pts_us)
		to = kx_grid_from(&picker->grid, pts_us - STAND_MAX_US);
	else if (picker->follows)
		to = kx_grid_from(&picker->grid, kx_select_start(picker->follows) - STAND_MAX_US);
	picker->next = to > picker->next ? to : picker->next + 1;
	picker->gap = true;
}

kx_status kx_picker_push_chosen(struct kx_picker *picker, AVFrame *frame, int64_t pts_us)
{
	kx_status status = KX_OK;
	while (!status) {
		int64_t chosen = open_choice(picker);
		int64_t t = kx_grid_time(&picker->grid, picker->next);
		if (chosen == KX_NO_TIME || chosen > pts_us)
			break;
		if (t - chosen > STAND_MAX_US || chosen - t > STAND_MAX_US) {
			leave_out(picker, chosen);
		} else if (chosen < pts_us) {
			picker->missed = true;
			status = KX_ECORRUPT;
		} else {
			status = give(picker, frame, t, pts_us);
		}
	}
	av_frame_unref(frame);
	return status;
}

kx_status kx_picker_check_chosen(struct kx_picker *picker)
{
	const struct kx_select_group *group = picker->expected;
	int64_t chosen = open_choice(picker);
	if (chosen == KX_NO_TIME || chosen > group->times[group->time_count - 1])
		return KX_OK;
	picker->missed = true;
	return KX_ECORRUPT;
}

kx_status kx_picker_push_nearest(struct kx_picker *picker, AVFrame *frame, int64_t pts_us)
{
	kx_status status = KX_OK;
	if (picker->held_us != KX_NO_TIME && pts_us <= picker->held_us) {
		av_frame_unref(frame);
		return KX_OK;
	}
	if (picker->held_us != KX_NO_TIME) {
		int64_t half = (pts_us - picker->held_us) / 2;
		status = serve(picker, picker->held, picker->held_us, picker->held_us + half + 1);
		/* Serving leaves out what is too far after a frame; this is what is too far before one. */
		if (!status && half > STAND_MAX_US && !kx_picker_satisfied(picker) &&
		    pts_us - kx_grid_time(&picker->grid, picker->next) > STAND_MAX_US)
			leave_out(picker, pts_us);
	}
	hold(picker, frame, pts_us);
	return status;
}

kx_status kx_picker_advance(struct kx_picker *picker, int64_t until_us)
{
	if (picker->held_us == KX_NO_TIME)
		return KX_OK;
	return serve(picker, picker->held, picker->held_us, until_us);
}

kx_status kx_picker_finish(struct kx_picker *picker, int64_t last_us)
{
	/* The first frame is there for k = 0 even when it is presented later than that. */
	if (picker->held_us == KX_NO_TIME)
		return KX_OK;
	int64_t end = last_us > picker->held_us ? last_us : picker->held_us;
	return serve(picker, picker->held, picker->held_us, end + 1);
}
