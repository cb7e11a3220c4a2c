/* A single file: one item, whose id is its name. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "coordinator/source/internal.h"

struct file {
	struct kx_source source;
	bool given;
};

static kx_status file_next(struct kx_source *source, struct kx_source_item **ret, struct kx_error *error)
{
	struct file *file = (struct file *)source;
	struct kx_source_item *item KX_CLEANUP(kx_source_item_cleanup) = NULL;
	char *id KX_CLEANUP(kx_cleanup_free) = NULL;
	struct kx_source_look look;

	if (file->given)
		return KX_ENOTFOUND;
	id = kx_source_id_of_path(strrchr(source->root, '/') + 1);
	if (!id || kx_source_item_new(id, source->root, &item))
		return kx_error_nomem(error);
	/* It was there when it was opened, and what happened since is said as of any other file. */
	kx_source_look(AT_FDCWD, source->root, &look);
	if (kx_source_item_refuse(item, look.reason, look.message))
		return kx_error_nomem(error);
	file->given = true;
	*ret = KX_STEAL(item);
	return KX_OK;
}

static void file_done(struct kx_source *source)
{
	(void)source;
}

static const struct kx_source_kind file_kind = {.next = file_next, .done = file_done};

kx_status kx_source_open_file(const char *arg, char *root, struct kx_source **ret, struct kx_error *error)
{
	struct file *file = NULL;

	if (faccessat(AT_FDCWD, root, R_OK, AT_EACCESS)) {
		kx_status status = kx_error_from_errno(error, errno, "%s", arg);

		free(root);
		return status;
	}
	file = calloc(1, sizeof(*file));
	if (!file) {
		free(root);
		return kx_error_nomem(error);
	}
	file->source.kind = &file_kind;
	file->source.root = root;
	*ret = &file->source;
	return KX_OK;
}
