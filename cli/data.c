#include "cli/data.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/fs.h"
#include "common/base/hash.h"
#include "common/base/str.h"

#define FORMAT "kinodex data 1\n"

/* sun_path holds 108 bytes; what is put behind the folder takes at most 32 of them. */
#define SOCKET_DIR_MAX 75

kx_status kx_data_mark(const char *dir, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *path = kx_fs_join(dir, "FORMAT");
	return path != NULL ? kx_fs_write(path, FORMAT, strlen(FORMAT), error) : kx_error_nomem(error);
}

static kx_status check_format(const char *dir, enum kx_data_mode mode, struct kx_error *error)
{
	char *path = kx_fs_join(dir, "FORMAT");
	if (path == NULL)
		return kx_error_nomem(error);
	struct kx_buf text = {.max = 256};
	kx_status status = kx_fs_read(path, text.max, &text, error);
	if (status == KX_ENOTFOUND && mode != KX_DATA_READ)
		status = kx_data_mark(dir, error);
	else if (status == KX_ENOTFOUND)
		status = kx_error_set(error, KX_ENOTFOUND, KX_ERROR_FATAL,
				      "%s holds no kinodex data. Index something into it first, or name another with --data",
				      dir);
	else if (status == KX_OK && strcmp((const char *)text.data, FORMAT) != 0)
		status = kx_error_set(error, KX_EVERSION, KX_ERROR_FATAL,
				      "%s was written by another version of kinodex (%.*s; this one reads and writes %.*s). "
				      "Use that version, or index into a new directory",
				      dir, (int)strcspn((const char *)text.data, "\n"), (const char *)text.data,
				      (int)strlen(FORMAT) - 1, FORMAT);
	kx_buf_done(&text);
	free(path);
	return status;
}

/* A stranger must not be able to put a socket where we connect. */
static kx_status private_dir(const char *path, struct kx_error *error)
{
	struct stat st;
	if (mkdir(path, 0700) != 0 && errno != EEXIST)
		return kx_error_from_errno(error, errno, "making %s", path);
	if (lstat(path, &st) != 0)
		return kx_error_from_errno(error, errno, "looking at %s", path);
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid())
		return kx_error_set(error, KX_EPERM, KX_ERROR_FATAL, "%s belongs to somebody else. Remove it", path);
	return KX_OK;
}

static char *user_dir(void)
{
	return kx_strf("/tmp/kinodex-%u", (unsigned)geteuid());
}

static kx_status short_socket_dir(const char *dir, char **ret, struct kx_error *error)
{
	uint8_t sha[KX_SHA256_LEN];
	char hex[17];
	kx_status status = kx_sha256_bytes(dir, strlen(dir), sha);
	if (status != KX_OK)
		return kx_error_nomem(error);
	kx_hex_encode(sha, 8, hex);
	char *base = user_dir();
	char *path = base != NULL ? kx_strf("%s/%s", base, hex) : NULL;
	status = path == NULL ? kx_error_nomem(error) : private_dir(base, error);
	if (status == KX_OK)
		*ret = KX_STEAL(path);
	free(path);
	free(base);
	return status;
}

static kx_status find_socket_dir(struct kx_data *data, struct kx_error *error)
{
	data->socket_dir = kx_fs_join(data->dir, "run");
	if (data->socket_dir == NULL)
		return kx_error_nomem(error);
	if (strlen(data->socket_dir) > SOCKET_DIR_MAX) {
		free(KX_STEAL(data->socket_dir));
		kx_status status = short_socket_dir(data->dir, &data->socket_dir, error);
		if (status != KX_OK)
			return status;
	}
	data->endpoint = kx_strf("ipc://%s/shard", data->socket_dir);
	data->control = kx_strf("ipc://%s/orders", data->socket_dir);
	data->work_dir = kx_strf("%s/%d", data->socket_dir, (int)getpid());
	if (data->endpoint == NULL || data->control == NULL || data->work_dir == NULL)
		return kx_error_nomem(error);
	kx_status status = private_dir(data->socket_dir, error);
	return status == KX_OK ? private_dir(data->work_dir, error) : status;
}

/* Folders of processes that were killed. */
static void sweep_work_dirs(const char *folder)
{
	KX_CLEANUP(kx_cleanup_closedir) DIR *dir = opendir(folder);
	for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
		uint64_t pid;
		if (kx_parse_u64(entry->d_name, &pid) != KX_OK || pid > INT32_MAX)
			continue;
		if (kill((pid_t)pid, 0) == 0 || errno != ESRCH)
			continue;
		KX_CLEANUP(kx_cleanup_free) char *path = kx_fs_join(folder, entry->d_name);
		if (path != NULL)
			(void)!kx_fs_remove_tree(path, NULL);
	}
}

static kx_status lock_for_writing(struct kx_data *data, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *path = kx_fs_join(data->dir, "LOCK");
	if (path == NULL)
		return kx_error_nomem(error);
	kx_status status = kx_fs_lock(path, &data->lock, error);
	if (status == KX_EBUSY)
		kx_error_prefix(error, status, "%s is in use by another kinodex; wait for it or name another --data: ",
				data->dir);
	return status;
}

static kx_status open_in(struct kx_data *data, const char *dir, enum kx_data_mode mode, struct kx_error *error)
{
	kx_status status = KX_OK;
	if (mode != KX_DATA_READ)
		status = kx_fs_mkdirs(dir, error);
	if (status != KX_OK)
		return status;
	data->dir = realpath(dir, NULL);
	if (data->dir == NULL && errno == ENOENT)
		return kx_error_set(error, KX_ENOTFOUND, KX_ERROR_FATAL,
				    "there is no data directory %s. Index something into it first, or name another with --data",
				    dir);
	if (data->dir == NULL)
		return kx_error_from_errno(error, errno, "opening data directory %s", dir);
	if (mode == KX_DATA_WRITE)
		status = lock_for_writing(data, error);
	if (status == KX_OK)
		status = check_format(data->dir, mode, error);
	if (status == KX_OK)
		status = find_socket_dir(data, error);
	if (status == KX_OK && mode == KX_DATA_WRITE)
		sweep_work_dirs(data->socket_dir);
	return status;
}

kx_status kx_data_open(const char *dir, enum kx_data_mode mode, struct kx_data **ret, struct kx_error *error)
{
	KX_CLEANUP(kx_data_cleanup) struct kx_data *data = calloc(1, sizeof(*data));
	if (data == NULL)
		return kx_error_nomem(error);
	data->lock = -1;
	kx_status status = open_in(data, dir, mode, error);
	if (status == KX_OK)
		*ret = KX_STEAL(data);
	return status;
}

void kx_data_free(struct kx_data *data)
{
	if (data == NULL)
		return;
	if (data->work_dir != NULL)
		(void)!kx_fs_remove_tree(data->work_dir, NULL);
	if (data->lock >= 0)
		close(data->lock);
	free(data->work_dir);
	free(data->endpoint);
	free(data->control);
	free(data->socket_dir);
	free(data->dir);
	free(data);
}

void kx_data_cleanup(struct kx_data **data)
{
	kx_data_free(*data);
}

bool kx_data_busy(const struct kx_data *data)
{
	KX_CLEANUP(kx_cleanup_free) char *path = kx_fs_join(data->dir, "LOCK");
	return path != NULL && kx_fs_is_locked(path);
}

kx_status kx_data_scratch(char **ret, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *base = user_dir();
	KX_CLEANUP(kx_cleanup_free) char *path = base != NULL ? kx_strf("%s/%d", base, (int)getpid()) : NULL;
	if (path == NULL)
		return kx_error_nomem(error);
	kx_status status = private_dir(base, error);
	if (status == KX_OK)
		status = private_dir(path, error);
	if (status != KX_OK)
		return status;
	sweep_work_dirs(base);
	*ret = KX_STEAL(path);
	return KX_OK;
}
