/* Making a snapshot's file: under a temporary name, synced, then renamed. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/base/fault.h"
#include "common/base/fs.h"
#include "common/base/str.h"
#include "shard/index/record.h"
#include "shard/query/snapshot_internal.h"

#define SECTIONS_MAX 4096u
#define ALIGN 64u
#define BUFFER (64u * KX_SNAPSHOT_BLOCK)
#define TEMPORARY ".tmp"

struct kx_snapshot_writer {
	char *dir, *path, *temporary;
	int fd;
	uint64_t id, at; /* at: bytes until now, those in `buffer` counted */
	uint8_t *buffer; /* [BUFFER] what is not written yet */
	uint32_t buffered;
	uint32_t *checks;
	size_t check_count, check_cap;
	struct kx_snapshot_section *sections;
	uint32_t section_count;
	kx_status status;
	struct kx_error error;
};

void kx_snapshot_writer_free(struct kx_snapshot_writer *writer)
{
	if (!writer)
		return;
	if (writer->fd >= 0) {
		(void)close(writer->fd);
		(void)unlink(writer->temporary);
	}
	free(writer->dir);
	free(writer->path);
	free(writer->temporary);
	free(writer->buffer);
	free(writer->checks);
	free(writer->sections);
	free(writer);
}

void kx_snapshot_writer_cleanup(struct kx_snapshot_writer **writer)
{
	kx_snapshot_writer_free(*writer);
	*writer = NULL;
}

static void fail(struct kx_snapshot_writer *writer)
{
	if (!writer->status)
		writer->status = kx_error_from_errno(&writer->error, errno, "%s: writing", writer->path);
}

static void write_out(struct kx_snapshot_writer *writer, const void *bytes, size_t len)
{
	const uint8_t *from = bytes;

	while (!writer->status && len) {
		ssize_t wrote = kx_fault("fs.write") ? -1 : write(writer->fd, from, len);

		if (wrote < 0 && errno == EINTR)
			continue;
		if (wrote < 0) {
			fail(writer);
			return;
		}
		from += wrote;
		len -= (size_t)wrote;
	}
}

static kx_status open_files(struct kx_snapshot_writer *writer, const char *dir, struct kx_error *error)
{
	static const uint8_t head[KX_SNAPSHOT_HEAD];
	kx_status status = kx_fs_mkdirs(dir, error);

	if (status)
		return status;
	if (getrandom(&writer->id, sizeof(writer->id), 0) != (ssize_t)sizeof(writer->id))
		return kx_error_from_errno(error, errno, "%s: a name", dir);
	writer->dir = kx_strdup(dir);
	writer->path = kx_snapshot_path(dir, writer->id);
	writer->temporary = writer->path ? kx_strf("%s" TEMPORARY, writer->path) : NULL;
	writer->buffer = malloc(BUFFER);
	writer->sections = calloc(SECTIONS_MAX, sizeof(*writer->sections));
	if (!writer->dir || !writer->temporary || !writer->buffer || !writer->sections)
		return kx_error_nomem(error);
	writer->fd = open(writer->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (writer->fd < 0)
		return kx_error_from_errno(error, errno, "%s", writer->temporary);
	write_out(writer, head, sizeof(head)); /* its place */
	writer->at = KX_SNAPSHOT_HEAD;
	return KX_OK;
}

kx_status kx_snapshot_create(const char *dir, struct kx_snapshot_writer **ret, struct kx_error *error)
{
	struct kx_snapshot_writer *writer = calloc(1, sizeof(*writer));
	kx_status status;

	if (!writer)
		return kx_error_nomem(error);
	writer->fd = -1;
	status = open_files(writer, dir, error);
	if (status)
		kx_snapshot_writer_free(writer);
	else
		*ret = writer;
	return status;
}

static bool checks_reserve(struct kx_snapshot_writer *writer, size_t more)
{
	size_t cap = writer->check_cap ? writer->check_cap * 2 : 1024;
	uint32_t *checks;

	if (writer->check_cap - writer->check_count >= more)
		return true;
	checks = realloc(writer->checks, cap * sizeof(*checks));
	if (!checks)
		return false;
	writer->checks = checks;
	writer->check_cap = cap;
	return true;
}

static void write_blocks(struct kx_snapshot_writer *writer)
{
	if (!checks_reserve(writer, BUFFER / KX_SNAPSHOT_BLOCK)) {
		errno = ENOMEM;
		fail(writer);
		return;
	}
	for (uint32_t from = 0; from < writer->buffered; from += KX_SNAPSHOT_BLOCK) {
		const uint32_t left = writer->buffered - from;

		writer->checks[writer->check_count++] =
			kx_crc32c(0, writer->buffer + from, left < KX_SNAPSHOT_BLOCK ? left : KX_SNAPSHOT_BLOCK);
	}
	write_out(writer, writer->buffer, writer->buffered);
	writer->buffered = 0;
}

static void add(struct kx_snapshot_writer *writer, const void *bytes, size_t len)
{
	const uint8_t *from = bytes;

	while (!writer->status && len) {
		const size_t room = BUFFER - writer->buffered, now = len < room ? len : room;

		memcpy(writer->buffer + writer->buffered, from, now);
		writer->buffered += (uint32_t)now;
		writer->at += now;
		from += now;
		len -= now;
		if (writer->buffered == BUFFER)
			write_blocks(writer);
	}
}

static void align(struct kx_snapshot_writer *writer)
{
	static const uint8_t zero[ALIGN];

	add(writer, zero, (ALIGN - writer->at % ALIGN) % ALIGN);
}

void kx_snapshot_begin(struct kx_snapshot_writer *writer, uint32_t kind, uint32_t number)
{
	align(writer);
	if (writer->section_count == SECTIONS_MAX) {
		errno = E2BIG;
		fail(writer);
		return;
	}
	writer->sections[writer->section_count++] =
		(struct kx_snapshot_section){.kind = kind, .number = number, .at = writer->at};
}

void kx_snapshot_add(struct kx_snapshot_writer *writer, const void *bytes, size_t len)
{
	if (writer->section_count)
		writer->sections[writer->section_count - 1].len += len;
	add(writer, bytes, len);
}

/* A rename lasts once its folder is on disk. */
static int sync_folder(const char *dir)
{
	KX_CLEANUP(kx_cleanup_close) int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || kx_fault("fs.fsync"))
		return -1;
	return fsync(fd) && errno != EINVAL ? -1 : 0;
}

static void put_in_place(struct kx_snapshot_writer *writer, const struct kx_snapshot_head *head)
{
	if (!writer->status && (kx_fault("fs.write") || pwrite(writer->fd, head, sizeof(*head), 0) != (ssize_t)sizeof(*head)))
		fail(writer);
	if (!writer->status && (kx_fault("fs.fsync") || fsync(writer->fd)))
		fail(writer);
	if (!writer->status && (kx_fault("fs.rename") || rename(writer->temporary, writer->path)))
		fail(writer);
	if (writer->status)
		return;
	(void)close(writer->fd);
	writer->fd = -1;
	if (sync_folder(writer->dir))
		fail(writer);
}

kx_status kx_snapshot_finish(struct kx_snapshot_writer *writer, struct kx_snapshot_ref *ret, struct kx_error *error)
{
	struct kx_snapshot_head head = {
		.magic = KX_SNAPSHOT_MAGIC, .format = KX_SNAPSHOT_FORMAT, .id = writer->id, .section_count = writer->section_count};
	const size_t sections = writer->section_count * sizeof(*writer->sections);
	size_t checks;
	uint32_t check;

	align(writer);
	write_blocks(writer);
	checks = writer->check_count * sizeof(*writer->checks);
	head.tables_at = writer->at;
	write_out(writer, writer->sections, sections);
	write_out(writer, writer->checks, checks);
	check = kx_crc32c(kx_crc32c(kx_crc32c(0, &head, sizeof(head)), writer->sections, sections), writer->checks, checks);
	put_in_place(writer, &head);
	if (writer->status && error)
		*error = writer->error;
	if (!writer->status)
		*ret = (struct kx_snapshot_ref){.id = writer->id, .bytes = writer->at + sections + checks, .check = check};
	return writer->status;
}

static bool is_ours(const char *name)
{
	return strstr(name, KX_SNAPSHOT_SUFFIX) != NULL;
}

void kx_snapshot_sweep(const char *dir, const struct kx_snapshot_ref *keep)
{
	KX_CLEANUP(kx_cleanup_free) char *kept = keep ? kx_snapshot_path(dir, keep->id) : NULL;
	DIR *folder = keep && !kept ? NULL : opendir(dir);

	for (struct dirent *entry; folder && (entry = readdir(folder));) {
		KX_CLEANUP(kx_cleanup_free) char *path = kx_fs_join(dir, entry->d_name);

		if (path && is_ours(entry->d_name) && !kx_str_eq(path, kept))
			(void)unlink(path);
	}
	if (folder)
		(void)closedir(folder);
}
