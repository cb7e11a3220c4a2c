#include "common/record/types.h"

#include "common/base/macros.h"

struct reason_text {
	const char *name;
	const char *help;
};

static const struct reason_text reasons[KX_REASON_COUNT] = {
	[KX_REASON_NONE] = {"none", "Nothing went wrong."},
	[KX_REASON_NOT_FOUND] = {
		"not-found",
		"The file is gone or is a link to nothing: restore it, or index without it."},
	[KX_REASON_NO_PERMISSION] = {
		"no-permission",
		"The file or its folder may not be read: give this user the right to read it."},
	[KX_REASON_EMPTY_FILE] = {"empty-file", "The file has no bytes: fetch or export it again."},
	[KX_REASON_NOT_MEDIA] = {
		"not-media",
		"No reader of video or audio knows this kind of file: leave it out, or convert it."},
	[KX_REASON_TRUNCATED] = {
		"truncated",
		"The file ends before anything can be decoded: fetch or export it again."},
	[KX_REASON_NO_STREAMS] = {
		"no-streams",
		"The file has neither picture nor sound: check that it was exported whole."},
	[KX_REASON_UNSUPPORTED] = {
		"unsupported",
		"This build does not read its codec or this kind of source: convert it, for instance to "
		"H.264 in MP4."},
	[KX_REASON_NO_FRAMES] = {
		"no-frames",
		"There are streams, but the decoder got nothing out of them: play the file to see "
		"whether it is damaged or encrypted."},
	[KX_REASON_TOO_LARGE] = {
		"too-large",
		"Its frames have more pixels, or its times reach further, than the limit allows: scale it "
		"down or cut it, or raise the limit."},
	[KX_REASON_WALL_LIMIT] = {
		"wall-limit",
		"Decoding took longer than allowed: replay it when the machine is less busy, or raise "
		"the limit."},
	[KX_REASON_CPU_LIMIT] = {
		"cpu-limit",
		"Decoding took more processor time than allowed: raise the limit, or use shorter "
		"segments."},
	[KX_REASON_MEMORY_LIMIT] = {
		"memory-limit",
		"Decoding needed more memory than allowed: raise the limit, or convert the file."},
	[KX_REASON_CRASHED] = {
		"crashed",
		"The decoder process died on this file: it is probably damaged, so convert it and try "
		"again."},
	[KX_REASON_CHANGED] = {
		"changed",
		"The file changed while it was read: index again once it is written completely."},
	[KX_REASON_DUPLICATE_ID] = {
		"duplicate-id",
		"Another input has the same id: give each its own in the manifest."},
	[KX_REASON_READ_FAILED] = {
		"read-failed",
		"The disk or the source failed while the file was read: check it, then replay."},
	[KX_REASON_MODEL_FAILED] = {
		"model-failed",
		"The model could not be run on it: check the bundle (kinodex bundle check), then "
		"replay."},
	[KX_REASON_INTERNAL] = {
		"internal",
		"A fault in kinodex itself: replay it, and report it with its dead letter if it comes "
		"again."},
	[KX_REASON_SANDBOX] = {
		"sandbox-violation",
		"The decoder tried what no decoder has to do, such as opening a file or a connection: do not "
		"open this file elsewhere, and report it with its capsule."},
};

const char *kx_reason_name(enum kx_reason reason)
{
	return reason >= KX_REASON_NONE && reason < KX_REASON_COUNT ? reasons[reason].name : "unknown";
}

const char *kx_reason_help(enum kx_reason reason)
{
	return reason >= KX_REASON_NONE && reason < KX_REASON_COUNT
		       ? reasons[reason].help
		       : "A reason that this version does not know: use the version that wrote it.";
}

const char *kx_input_state_name(enum kx_input_state state)
{
	static const char *const names[] = {
		[KX_INPUT_PLANNED] = "planned",
		[KX_INPUT_DONE] = "done",
		[KX_INPUT_PARTIAL] = "partial",
		[KX_INPUT_QUARANTINED] = "quarantined",
		[KX_INPUT_DELETED] = "deleted",
	};

	return state >= KX_INPUT_PLANNED && state < KX_ARRAY_LEN(names) ? names[state] : "unknown";
}

const char *kx_modality_name(enum kx_modality modality)
{
	switch (modality) {
	case KX_VISUAL:
		return "visual";
	case KX_AUDIO:
		return "audio";
	}
	return "unknown";
}

const char *kx_decode_mode_name(enum kx_decode_mode mode)
{
	switch (mode) {
	case KX_DECODE_EXACT:
		return "exact";
	case KX_DECODE_TOLERANT:
		return "tol";
	case KX_DECODE_KEYFRAME:
		return "keyframe";
	}
	return "unknown";
}
