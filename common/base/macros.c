#include "common/base/macros.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void kx_cleanup_free(void *pointer_to_pointer)
{
	free(*(void **)pointer_to_pointer);
}

void kx_cleanup_close(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	errno = saved;
}

int kx_steal_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

void kx_cleanup_fclose(void *pointer_to_file)
{
	FILE *file = *(FILE **)pointer_to_file;

	if (file)
		fclose(file);
}

void kx_cleanup_closedir(void *pointer_to_dir)
{
	DIR *dir = *(DIR **)pointer_to_dir;

	if (dir)
		closedir(dir);
}
