#include "shard/query/duplicates_file.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/fs.h"
#include "common/base/str.h"

#define FILE_NAME "duplicates.tsv"
#define FILE_MAX ((size_t)1 << 30)

struct kx_duplicates_file {
	pthread_mutex_t lock;
	char *path;
	bool was_read;
	struct stat info; /* of what was read last; zeroed: there was none */
};

kx_status kx_duplicates_file_new(const char *data_dir, struct kx_duplicates_file **ret)
{
	struct kx_duplicates_file *file = calloc(1, sizeof(*file));

	if (!file)
		return KX_ENOMEM;
	file->path = kx_fs_join(data_dir, FILE_NAME);
	if (!file->path || pthread_mutex_init(&file->lock, NULL)) {
		free(file->path);
		free(file);
		return KX_ENOMEM;
	}
	*ret = file;
	return KX_OK;
}

void kx_duplicates_file_free(struct kx_duplicates_file *file)
{
	if (!file)
		return;
	pthread_mutex_destroy(&file->lock);
	free(file->path);
	free(file);
}

static bool is_same(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	       a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static size_t count_lines(const struct kx_buf *text)
{
	size_t count = 0;

	for (size_t i = 0; i < text->len; i++)
		count += text->data[i] == '\n';
	return count;
}

/* Cuts the text into pairs in place. */
static kx_status split(struct kx_buf *text, struct kx_duplicate_pair *pairs, size_t *ret_count)
{
	char *rest = text->data ? (char *)text->data : NULL, *line;
	size_t count = 0;

	while ((line = strsep(&rest, "\n")) != NULL && rest) {
		char *tab = strchr(line, '\t');

		if (!tab || tab == line || !tab[1])
			return KX_ECORRUPT;
		*tab = '\0';
		pairs[count++] = (struct kx_duplicate_pair){line, tab + 1};
	}
	*ret_count = count;
	return KX_OK;
}

static kx_status load(struct kx_duplicates_file *file, struct kx_mirror *mirror, struct kx_error *error)
{
	struct kx_buf text = {0};
	KX_CLEANUP(kx_cleanup_free) struct kx_duplicate_pair *pairs = NULL;
	size_t count = 0;
	kx_status status = kx_fs_read(file->path, FILE_MAX, &text, error);

	if (status)
		return status;
	pairs = calloc(count_lines(&text) + 1, sizeof(*pairs));
	status = pairs ? split(&text, pairs, &count) : KX_ENOMEM;
	if (!status)
		status = kx_mirror_set_duplicates(mirror, pairs, count);
	if (status == KX_ECORRUPT)
		(void)kx_error_set(error, KX_ECORRUPT, KX_ERROR_POISON,
				   "%s: not what kinodex duplicates writes; run it again", file->path);
	else if (status)
		(void)kx_error_nomem(error);
	kx_buf_done(&text);
	return status;
}

kx_status kx_duplicates_file_refresh(struct kx_duplicates_file *file, struct kx_mirror *mirror, struct kx_error *error)
{
	struct stat now = {0};
	bool is_there;
	kx_status status = KX_OK;

	pthread_mutex_lock(&file->lock);
	is_there = stat(file->path, &now) == 0;
	if (!is_there && errno != ENOENT)
		status = kx_error_from_errno(error, errno, "%s", file->path);
	else if (!is_there && file->was_read)
		status = kx_mirror_set_duplicates(mirror, NULL, 0) ? kx_error_nomem(error) : KX_OK;
	else if (is_there && (!file->was_read || !is_same(&now, &file->info)))
		status = load(file, mirror, error);
	if (!status) {
		file->was_read = is_there;
		file->info = now;
	}
	pthread_mutex_unlock(&file->lock);
	return status;
}

kx_status kx_duplicates_file_write(const char *data_dir, const struct kx_duplicate_pair *pairs, size_t count,
				   struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *path = kx_fs_join(data_dir, FILE_NAME);
	struct kx_buf text = {.max = FILE_MAX};
	kx_status status = path ? KX_OK : kx_error_nomem(error);

	for (size_t i = 0; !status && i < count; i++) {
		const char *bad = strpbrk(pairs[i].id, "\t\n") ? pairs[i].id : strpbrk(pairs[i].of, "\t\n") ? pairs[i].of : NULL;

		if (bad)
			status = kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "\"%.80s\" has a tab or a line's end", bad);
		else if (kx_buf_printf(&text, "%s\t%s\n", pairs[i].id, pairs[i].of))
			status = kx_error_nomem(error);
	}
	if (!status)
		status = kx_fs_write(path, text.data ? text.data : (const uint8_t *)"", text.len, error);
	kx_buf_done(&text);
	return status;
}
