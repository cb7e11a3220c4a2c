/* Runs a fuzz target over files and folders of files, each once, in the order of their names: corpora as tests, in
 * builds without libFuzzer.
 *
 *   fuzz_NAME FILE|FOLDER...
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/fs.h"
#include "common/base/macros.h"
#include "tests/fuzz/fuzz.h"

#define INPUT_MAX ((size_t)16 << 20)

static unsigned replayed;

static bool replay_file(const char *path)
{
	struct kx_buf bytes = {0};
	struct kx_error error = {0};
	uint8_t *exact;

	if (kx_fs_read(path, INPUT_MAX, &bytes, &error) != KX_OK) {
		fprintf(stderr, "%s\n", error.message);
		return false;
	}
	/* Of exactly that size, so that the sanitizers see what is read past it. */
	exact = malloc(bytes.len > 0 ? bytes.len : 1);
	FUZZ_CHECK(exact);
	if (bytes.len > 0)
		memcpy(exact, bytes.data, bytes.len);
	printf("%s\n", path); /* the last one is the one that crashed */
	fflush(stdout);
	(void)LLVMFuzzerTestOneInput(exact, bytes.len);
	free(exact);
	kx_buf_done(&bytes);
	replayed++;
	return true;
}

static int visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static bool replay_folder(const char *path)
{
	struct dirent **names = NULL;
	int count = scandir(path, &names, visible, alphasort);
	bool good = count >= 0;

	if (!good)
		perror(path);
	for (int i = 0; i < count; i++) {
		char *file = kx_fs_join(path, names[i]->d_name);

		FUZZ_CHECK(file);
		good = replay_file(file) && good;
		free(file);
		free(names[i]);
	}
	free(names);
	return good;
}

int main(int argc, char **argv)
{
	bool good = true;

	for (int i = 1; i < argc; i++) {
		struct stat st;

		if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode))
			good = replay_folder(argv[i]) && good;
		else
			good = replay_file(argv[i]) && good;
	}
	printf("%u inputs replayed\n", replayed);
	/* A corpus that got lost is no corpus without findings. */
	return good && replayed > 0 ? 0 : 1;
}
