#include "common/base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/fault.h"
#include "common/base/str.h"

#define READ_CHUNK_BYTES (64 * 1024)
#define TEMPORARY_TRIES 8

static kx_status too_big(struct kx_error *error, const char *path, size_t max)
{
	return kx_error_set(error, KX_ETOOBIG, KX_ERROR_POISON, "%s: larger than the %zu bytes allowed", path, max);
}

/* Reads into the room that buf has, making some when there is none. At the maximum it reads a byte more, which tells
 * the end of the file from too much: a file may grow meanwhile, and what /proc serves says that its size is 0. */
static kx_status read_some(int fd, const char *path, struct kx_buf *buf, size_t *ret_got, struct kx_error *error)
{
	size_t left = buf->max - buf->len;
	uint8_t probe;
	ssize_t got;

	if (buf->len == buf->cap && kx_buf_reserve(buf, left < READ_CHUNK_BYTES ? left : READ_CHUNK_BYTES))
		return kx_error_nomem(error);
	do {
		uint8_t *to = left ? buf->data + buf->len : &probe;
		size_t room = left ? buf->cap - buf->len : 1;

		got = kx_fault("fs.read") ? -1 : read(fd, to, room);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		return kx_error_from_errno(error, errno, "%s", path);
	if (got > 0 && !left)
		return too_big(error, path, buf->max);
	buf->len += (size_t)got;
	buf->data[buf->len] = 0;
	*ret_got = (size_t)got;
	return KX_OK;
}

kx_status kx_fs_read(const char *path, size_t max, struct kx_buf *ret, struct kx_error *error)
{
	struct kx_buf buf KX_CLEANUP(kx_buf_done) = {.max = max};
	int fd KX_CLEANUP(kx_cleanup_close) = open(path, O_RDONLY | O_CLOEXEC);
	struct stat info;
	size_t got;

	if (fd < 0 || fstat(fd, &info))
		return kx_error_from_errno(error, errno, "%s", path);
	size_t size = S_ISREG(info.st_mode) ? (size_t)info.st_size : 0;
	if (size > max)
		return too_big(error, path, max);
	/* A byte more than the file has, where allowed: then the read that finds the end needs no new room. */
	if (kx_buf_reserve(&buf, size < max ? size + 1 : size))
		return kx_error_nomem(error);
	do {
		kx_status status = read_some(fd, path, &buf, &got, error);
		if (status)
			return status;
	} while (got);
	*ret = buf;
	buf.data = NULL;
	return KX_OK;
}

/* A new file beside path. O_EXCL and a random name: a file left over by a killed process must not be in the way,
 * and mkostemp() would not honour the umask. */
static int open_temporary(const char *path, char **ret_name)
{
	for (int i = 0; i < TEMPORARY_TRIES; i++) {
		uint64_t random;

		if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
			return -1;
		char *name KX_CLEANUP(kx_cleanup_free) = kx_strf("%s.tmp.%016" PRIx64, path, random);
		if (!name) {
			errno = ENOMEM;
			return -1;
		}
		int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
		if (fd >= 0)
			*ret_name = KX_STEAL(name);
		if (fd >= 0 || errno != EEXIST)
			return fd;
	}
	return -1;
}

static int write_all(int fd, const void *bytes, size_t len)
{
	const uint8_t *from = bytes;

	while (len) {
		ssize_t wrote = kx_fault("fs.write") ? -1 : write(fd, from, len);
		if (wrote < 0 && errno == EINTR)
			continue;
		if (wrote < 0)
			return -1;
		from += wrote;
		len -= (size_t)wrote;
	}
	return 0;
}

/* A rename lasts once its folder is on disk. File systems that can't sync a folder say EINVAL. */
static int sync_parent(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *folder KX_CLEANUP(kx_cleanup_free) =
		!slash ? kx_strdup(".") : kx_strndup(path, slash == path ? 1 : (size_t)(slash - path));

	if (!folder) {
		errno = ENOMEM;
		return -1;
	}
	int fd KX_CLEANUP(kx_cleanup_close) = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || kx_fault("fs.fsync"))
		return -1;
	return fsync(fd) && errno != EINVAL ? -1 : 0;
}

static int write_temporary(int fd, const void *bytes, size_t len)
{
	if (write_all(fd, bytes, len) || kx_fault("fs.fsync"))
		return -1;
	return fsync(fd);
}

kx_status kx_fs_write(const char *path, const void *bytes, size_t len, struct kx_error *error)
{
	char *name KX_CLEANUP(kx_cleanup_free) = NULL;
	int fd = open_temporary(path, &name);

	if (fd < 0)
		return kx_error_from_errno(error, errno, "%s", path);
	int failed = write_temporary(fd, bytes, len);
	int cause = errno;
	if (close(fd) && !failed) {
		failed = -1;
		cause = errno;
	}
	if (!failed && (kx_fault("fs.rename") || rename(name, path))) {
		failed = -1;
		cause = errno;
	}
	if (failed) {
		unlink(name);
		return kx_error_from_errno(error, cause, "%s: writing", path);
	}
	return sync_parent(path) ? kx_error_from_errno(error, errno, "%s: syncing its folder", path) : KX_OK;
}

kx_status kx_fs_move(const char *from, const char *to, struct kx_error *error)
{
	if (kx_fault("fs.rename") || rename(from, to))
		return kx_error_from_errno(error, errno, "renaming %s to %s", from, to);
	if (!sync_parent(to))
		return KX_OK;
	int cause = errno;
	(void)!rename(to, from);
	return kx_error_from_errno(error, cause, "%s: syncing its folder", to);
}

static kx_status make_folder(const char *path, struct kx_error *error)
{
	struct stat info;

	if (mkdir(path, 0777) == 0)
		return KX_OK;
	int cause = errno;
	if (stat(path, &info)) /* EEXIST of a dangling link is no folder either */
		return kx_error_from_errno(error, cause, "%s: making the folder", path);
	if (!S_ISDIR(info.st_mode))
		return kx_error_set(error, KX_EEXIST, KX_ERROR_POISON, "%s: is there and is no folder", path);
	return KX_OK;
}

kx_status kx_fs_mkdirs(const char *path, struct kx_error *error)
{
	char *part KX_CLEANUP(kx_cleanup_free) = kx_strdup(path);

	if (!part)
		return kx_error_nomem(error);
	for (char *slash = part[0] ? strchr(part + 1, '/') : NULL; slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		kx_status status = make_folder(part, error);
		if (status)
			return status;
		*slash = '/';
	}
	return make_folder(part, error);
}

bool kx_fs_exists(const char *path)
{
	return access(path, F_OK) == 0;
}

bool kx_fs_is_socket(int fd)
{
	struct stat info;

	return fstat(fd, &info) == 0 && S_ISSOCK(info.st_mode);
}

char *kx_fs_join(const char *folder, const char *name)
{
	return kx_strf(kx_str_ends(folder, "/") ? "%s%s" : "%s/%s", folder, name);
}

/* Walks without following links. NULL with errno set. */
static FTS *open_tree(char *path)
{
	char *const roots[] = {path, NULL};

	return fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
}

static void close_tree(FTS **tree)
{
	if (*tree)
		fts_close(*tree);
}

static kx_status remove_entry(const FTSENT *entry, struct kx_error *error)
{
	int failed = 0;

	switch (entry->fts_info) {
	case FTS_D: /* met again as FTS_DP, when it is empty */
		return KX_OK;
	case FTS_DNR:
	case FTS_ERR:
		return kx_error_from_errno(error, entry->fts_errno, "%s: removing", entry->fts_path);
	case FTS_DP:
		failed = rmdir(entry->fts_path);
		break;
	default:
		failed = unlink(entry->fts_path);
	}
	if (failed && errno != ENOENT)
		return kx_error_from_errno(error, errno, "%s: removing", entry->fts_path);
	return KX_OK;
}

kx_status kx_fs_remove_tree(const char *path, struct kx_error *error)
{
	char *root KX_CLEANUP(kx_cleanup_free) = kx_strdup(path);
	FTS *tree KX_CLEANUP(close_tree) = root ? open_tree(root) : NULL;

	if (!tree)
		return root ? kx_error_from_errno(error, errno, "%s: removing", path) : kx_error_nomem(error);
	for (errno = 0; ; errno = 0) {
		const FTSENT *entry = fts_read(tree);
		if (!entry)
			return errno ? kx_error_from_errno(error, errno, "%s: removing", path) : KX_OK;
		kx_status status = remove_entry(entry, error);
		if (status)
			return status;
	}
}

/* A log that is written to has room set aside past its end, which is given back. */
static uint64_t held_bytes(const struct stat *info)
{
	uint64_t block = (uint64_t)info->st_blksize;
	uint64_t filled = ((uint64_t)info->st_size + block - 1) / block * block;
	uint64_t taken = (uint64_t)info->st_blocks * 512;

	return taken < filled ? taken : filled;
}

uint64_t kx_fs_tree_bytes(const char *path)
{
	char *root KX_CLEANUP(kx_cleanup_free) = kx_strdup(path);
	FTS *tree KX_CLEANUP(close_tree) = root ? open_tree(root) : NULL;
	uint64_t bytes = 0;

	for (const FTSENT *entry = tree ? fts_read(tree) : NULL; entry; entry = fts_read(tree))
		if (entry->fts_info == FTS_F)
			bytes += held_bytes(entry->fts_statp);
	return bytes;
}

static kx_status report_holder(int fd, const char *path, struct kx_error *error)
{
	char text[32];
	ssize_t len = pread(fd, text, sizeof(text) - 1, 0);
	uint64_t pid;

	text[len > 0 ? len : 0] = '\0';
	text[strcspn(text, "\n")] = '\0';
	if (kx_parse_u64(text, &pid)) /* it has the lock and has not written its number yet */
		return kx_error_set(error, KX_EBUSY, KX_ERROR_FATAL, "%s: in use by another process", path);
	return kx_error_set(error, KX_EBUSY, KX_ERROR_FATAL, "%s: in use by process %" PRIu64, path, pid);
}

kx_status kx_fs_lock(const char *path, int *ret_fd, struct kx_error *error)
{
	int fd KX_CLEANUP(kx_cleanup_close) = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);

	if (fd < 0)
		return kx_error_from_errno(error, errno, "%s: opening the lock", path);
	if (fcntl(fd, F_OFD_SETLK, &(struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET})) {
		if (errno == EAGAIN || errno == EACCES)
			return report_holder(fd, path, error);
		return kx_error_from_errno(error, errno, "%s: locking", path);
	}
	if (ftruncate(fd, 0) || dprintf(fd, "%d\n", (int)getpid()) < 0)
		return kx_error_from_errno(error, errno, "%s: writing the lock", path);
	*ret_fd = kx_steal_fd(&fd);
	return KX_OK;
}

bool kx_fs_is_locked(const char *path)
{
	int fd KX_CLEANUP(kx_cleanup_close) = open(path, O_RDONLY | O_CLOEXEC);
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	return fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}
