/* A manifest: JSON Lines or CSV. It is read twice: first to check all of it, so that nothing is begun with a bad one,
 * then row by row. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/fs.h"
#include "common/base/str.h"
#include "coordinator/source/idset.h"
#include "coordinator/source/internal.h"
#include "coordinator/source/row.h"
#include "coordinator/source/url.h"

struct manifest {
	struct kx_source source;
	char *name;   /* as the user typed it */
	char *folder; /* absolute, where relative paths start */
	int fd;
	struct stat info; /* as it was when it was checked */
	kx_status (*next_row)(struct kx_rows *rows, struct kx_row *row, struct kx_error *error);
	struct kx_rows rows;
	struct kx_lines lines;
};

static kx_status at_line(const struct manifest *manifest, kx_status status, struct kx_error *error)
{
	return kx_error_prefix(error, status, "%s:%" PRIu64, manifest->name, manifest->rows.line);
}

static kx_status resolve_url(struct kx_row *row, struct kx_error *error)
{
	struct kx_error cause = {0};
	char *path = NULL;
	kx_status status;

	if (kx_fetch_is_url(row->url)) {
		row->item->path = KX_STEAL(row->url);
		return KX_OK;
	}
	status = kx_source_url_path(row->url, &path, &cause);
	if (status == KX_EINVAL)
		return kx_row_invalid(error, KX_FIELD_URL, "%s", cause.message);
	/* No mistake in the manifest: the input is quarantined, with the reason. */
	if (status == KX_EUNSUPPORTED && !kx_source_item_refuse(row->item, KX_REASON_UNSUPPORTED, cause.message))
		path = KX_STEAL(row->url);
	row->item->path = path;
	return path ? KX_OK : kx_error_nomem(error);
}

static kx_status resolve_path(const struct manifest *manifest, struct kx_row *row, struct kx_error *error)
{
	char *path;

	if (row->item->path[0] == '/')
		return KX_OK;
	path = kx_fs_join(manifest->folder, row->item->path);
	if (!path)
		return kx_error_nomem(error);
	free(row->item->path);
	row->item->path = path;
	if (strlen(path) > KX_PATH_MAX)
		return kx_row_invalid(error, KX_FIELD_PATH,
				      "with the manifest's folder before it, it has %zu bytes, and at most %u are "
				      "allowed",
				      strlen(path), KX_PATH_MAX);
	return KX_OK;
}

static kx_status fill_empty(char **text)
{
	if (!*text)
		*text = kx_strdup("");
	return *text ? KX_OK : KX_ENOMEM;
}

/* The next row, its path absolute. A path goes before a url: where both are given, the file has been fetched. */
static kx_status next_row(struct manifest *manifest, struct kx_row *row, struct kx_error *error)
{
	kx_status status = manifest->next_row(&manifest->rows, row, error);

	if (status == KX_ENOTFOUND)
		return status;
	if (!status && row->item->path)
		status = resolve_path(manifest, row, error);
	else if (!status)
		status = resolve_url(row, error);
	if (!status && (fill_empty(&row->item->title) || fill_empty(&row->item->message) ||
			fill_empty(&row->item->extras.language) || fill_empty(&row->item->extras.visibility)))
		status = kx_error_nomem(error);
	return status ? at_line(manifest, status, error) : KX_OK;
}

static kx_status add_id(const struct manifest *manifest, struct kx_idset *ids, const struct kx_row *row,
			struct kx_error *error)
{
	const char *id = row->item->video_id;
	uint64_t first = 0;

	switch (kx_idset_add(ids, id, row->line, &first)) {
	case KX_OK:
		return KX_OK;
	case KX_EEXIST:
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
				    "%s:%" PRIu64 ": id: \"%.80s\" is that of line %" PRIu64
				    " already; give each input its own", manifest->name, row->line, id, first);
	case KX_ETOOBIG:
		return kx_error_set(error, KX_ETOOBIG, KX_ERROR_POISON,
				    "%s:%" PRIu64 ": more than %zu inputs; split the manifest", manifest->name,
				    row->line, KX_IDSET_MAX);
	default:
		return kx_error_nomem(error);
	}
}

static kx_status check_all(struct manifest *manifest, struct kx_error *error)
{
	struct kx_idset ids KX_CLEANUP(kx_idset_done) = {0};
	struct kx_row row KX_CLEANUP(kx_row_done) = {0};
	kx_status status;

	do {
		status = next_row(manifest, &row, error);
		if (!status)
			status = add_id(manifest, &ids, &row, error);
	} while (!status);
	if (status != KX_ENOTFOUND)
		return status;
	kx_lines_rewind(&manifest->lines);
	kx_csv_free(manifest->rows.csv); /* the header row is read again */
	manifest->rows.csv = NULL;
	manifest->rows.is_typed = true;
	return KX_OK;
}

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* What a manifest lacks counts as deleted, so a list that somebody was writing must not pass for a whole one. */
static kx_status end_of_rows(const struct manifest *manifest, struct kx_error *error)
{
	struct stat now;

	if (fstat(manifest->fd, &now))
		return kx_error_from_errno(error, errno, "%s", manifest->name);
	if (now.st_size != manifest->info.st_size || !same_time(now.st_mtim, manifest->info.st_mtim))
		return kx_error_set(error, KX_EIO, KX_ERROR_RETRY, "%s: it changed while it was read; run again",
				    manifest->name);
	return KX_ENOTFOUND;
}

static kx_status look_at(struct kx_source_item *item)
{
	struct kx_source_look look;

	if (item->reason != KX_REASON_NONE || kx_fetch_is_url(item->path))
		return KX_OK;
	kx_source_look(AT_FDCWD, item->path, &look);
	if (look.is_folder)
		return kx_source_item_refuse(item, KX_REASON_UNSUPPORTED,
					     "a folder, not a file; name it as a source of its own");
	return kx_source_item_refuse(item, look.reason, look.message);
}

static kx_status manifest_next(struct kx_source *source, struct kx_source_item **ret, struct kx_error *error)
{
	struct manifest *manifest = (struct manifest *)source;
	struct kx_row row KX_CLEANUP(kx_row_done) = {0};
	kx_status status = next_row(manifest, &row, error);

	if (status == KX_ENOTFOUND)
		return end_of_rows(manifest, error);
	if (status)
		return status;
	if (look_at(row.item))
		return kx_error_nomem(error);
	*ret = KX_STEAL(row.item);
	return KX_OK;
}

static void manifest_done(struct kx_source *source)
{
	struct manifest *manifest = (struct manifest *)source;

	kx_rows_done(&manifest->rows);
	kx_cleanup_close(&manifest->fd);
	free(manifest->name);
	free(manifest->folder);
}

static const struct kx_source_kind manifest_kind = {.next = manifest_next, .done = manifest_done};

kx_status kx_source_open_manifest(const char *arg, char *root, const struct kx_schema *schema, struct kx_source **ret,
				  struct kx_error *error)
{
	struct kx_source *source KX_CLEANUP(kx_source_cleanup) = NULL;
	struct manifest *manifest = calloc(1, sizeof(*manifest));
	const char *slash = strrchr(root, '/');
	kx_status status;

	if (!manifest) {
		free(root);
		return kx_error_nomem(error);
	}
	source = &manifest->source;
	*source = (struct kx_source){.kind = &manifest_kind, .root = root, .is_complete = true};
	manifest->fd = open(root, O_RDONLY | O_CLOEXEC);
	if (manifest->fd < 0 || fstat(manifest->fd, &manifest->info))
		return kx_error_from_errno(error, errno, "%s", arg);
	manifest->name = kx_strdup(arg);
	manifest->folder = kx_strndup(root, slash == root ? 1 : (size_t)(slash - root));
	if (!manifest->name || !manifest->folder || kx_schema_copy(schema, &manifest->rows.types))
		return kx_error_nomem(error);
	manifest->lines.fd = manifest->fd;
	manifest->rows.lines = &manifest->lines;
	manifest->rows.name = manifest->name;
	manifest->rows.text.max = KX_LINE_MAX;
	manifest->next_row = strcasecmp(strrchr(root, '.'), ".csv") == 0 ? kx_rows_next_csv : kx_rows_next_json;
	status = check_all(manifest, error);
	if (!status)
		*ret = KX_STEAL(source);
	return status;
}
