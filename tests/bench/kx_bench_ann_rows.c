/* Files of rows: int32 count, int32 dimension, then the numbers. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "common/base/macros.h"
#include "common/base/str.h"
#include "tests/bench/kx_bench_ann.h"

kx_status bench_rows_map(const char *path, struct bench_rows *ret, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat about;
	int32_t head[2];
	void *map;

	if (fd < 0 || fstat(fd, &about))
		return kx_error_set(error, KX_EIO, KX_ERROR_FATAL, "can't open %s: %s", path, strerror(errno));
	map = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return kx_error_set(error, KX_EIO, KX_ERROR_FATAL, "can't map %s: %s", path, strerror(errno));
	memcpy(head, map, sizeof(head));
	*ret = (struct bench_rows){head[0], head[1], (const char *)map + sizeof(head), map, (size_t)about.st_size};
	if (head[0] <= 0 || head[1] <= 0 || (size_t)about.st_size != sizeof(head) + (size_t)head[0] * (size_t)head[1] * 4) {
		bench_rows_unmap(ret);
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "%s is no file of rows", path);
	}
	return KX_OK;
}

void bench_rows_unmap(struct bench_rows *rows)
{
	if (rows->map)
		munmap(rows->map, rows->map_bytes);
	*rows = (struct bench_rows){0};
}
