/* A file of any bytes through the probe. Whatever it holds, what the child would say of it is something that the parent
 * takes. */
#include <math.h>
#include <stdlib.h>

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/told.h"
#include "worker/media/media.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	kx_media_init();
	return 0;
}

/* The longer answer, for people. */
static void inspect(int fd)
{
	struct kx_probe_info info = {0};
	struct kx_probe_detail detail = {0};
	enum kx_reason reason = KX_REASON_NONE;
	struct kx_error error = {0};

	if (kx_media_inspect(fd, "clip", &info, &detail, &reason, &error) != KX_OK)
		return;
	told_opened(&info);
	told_detail(&detail);
	kx_probe_info_done(&info);
	kx_probe_detail_done(&detail);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct kx_probe_info info = {0};
	enum kx_reason reason = KX_REASON_NONE;
	struct kx_error error = {0};
	kx_status status = kx_media_probe(fuzz_file(bytes, len), "clip", &info, &reason, &error);

	FUZZ_CHECK((status == KX_OK) == (reason == KX_REASON_NONE));
	if (status == KX_OK) {
		FUZZ_CHECK(info.has_visual || info.has_audio);
		told_opened(&info);
		kx_probe_info_done(&info);
		inspect(fuzz_file(bytes, len));
	} else {
		FUZZ_CHECK(error.message[0] != '\0' && reason != KX_REASON_INTERNAL);
		told_end(&(struct kx_decode_end){.reason = reason, .message = error.message});
	}
	return 0;
}
