/* A manifest: CSV when the first byte is odd, else JSON Lines. Opening it reads and checks all of it; what it accepts
 * streams to its end within all limits, what it refuses it refuses with the line. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/fs.h"
#include "common/base/str.h"
#include "coordinator/source/source.h"
#include "tests/fuzz/fuzz.h"

static char folder[] = "/tmp/kx-fuzz-XXXXXX";

static void leave(void)
{
	if (kx_fs_remove_tree(folder, NULL) != KX_OK)
		perror(folder);
}

static void enter(void)
{
	static bool entered;

	if (entered)
		return;
	entered = true;
	FUZZ_CHECK(mkdtemp(folder));
	atexit(leave);
}

static void write_file(const char *name, const uint8_t *bytes, size_t len)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	FUZZ_CHECK(fd >= 0);
	FUZZ_CHECK(write(fd, bytes, len) == (ssize_t)len);
	close(fd);
}

static void check_item(const struct kx_source_item *item)
{
	FUZZ_CHECK(item->video_id[0] != '\0' && strlen(item->video_id) <= KX_ID_MAX);
	FUZZ_CHECK(kx_utf8_valid(item->video_id, strlen(item->video_id)));
	FUZZ_CHECK(item->path[0] != '\0' && strlen(item->path) <= KX_PATH_MAX);
	FUZZ_CHECK(strlen(item->title) <= KX_TEXT_MAX);
	FUZZ_CHECK(item->label_count <= KX_LABELS_MAX);
	for (uint32_t i = 0; i < item->label_count; i++)
		FUZZ_CHECK(item->labels[i][0] != '\0' && strlen(item->labels[i]) <= KX_TEXT_MAX);
	FUZZ_CHECK(item->duration_us <= KX_MEDIA_US_MAX);
	FUZZ_CHECK(item->reason >= KX_REASON_NONE && item->reason < KX_REASON_COUNT);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	char name[sizeof(folder) + 16];
	KX_CLEANUP(kx_source_cleanup) struct kx_source *source = NULL;
	struct kx_error error = {0};
	kx_status status;

	if (len == 0)
		return 0;
	enter();
	snprintf(name, sizeof(name), "%s/m.%s", folder, bytes[0] % 2 ? "csv" : "jsonl");
	write_file(name, bytes + 1, len - 1);
	status = kx_source_open(name, &source, &error);
	if (status != KX_OK) {
		FUZZ_CHECK(status == KX_EINVAL || status == KX_ETOOBIG);
		FUZZ_CHECK(kx_str_starts(error.message, name) && error.message[strlen(name)] == ':');
		FUZZ_CHECK(error.message[strlen(name) + 1] >= '1' && error.message[strlen(name) + 1] <= '9');
		return 0;
	}
	while (status == KX_OK) {
		KX_CLEANUP(kx_source_item_cleanup) struct kx_source_item *item = NULL;

		status = kx_source_next(source, &item, &error);
		if (status == KX_OK)
			check_item(item);
	}
	FUZZ_CHECK(status == KX_ENOTFOUND);
	return 0;
}
