#include "coordinator/source/source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "common/base/fs.h"
#include "common/base/str.h"
#include "coordinator/source/internal.h"

static bool is_manifest(const char *arg)
{
	const char *dot = strrchr(arg, '.');

	return dot && (strcasecmp(dot, ".jsonl") == 0 || strcasecmp(dot, ".csv") == 0);
}

static char *real_path_of_file(const char *arg)
{
	const char *slash = strrchr(arg, '/');
	char *parent KX_CLEANUP(kx_cleanup_free) =
		slash ? kx_strndup(arg, (size_t)(slash - arg) + 1) : kx_strdup(".");
	char *real KX_CLEANUP(kx_cleanup_free) = parent ? realpath(parent, NULL) : NULL;
	char *path;

	if (parent && !real)
		return NULL;
	path = real ? kx_fs_join(real, slash ? slash + 1 : arg) : NULL;
	if (!path)
		errno = ENOMEM;
	return path;
}

kx_status kx_source_open(const char *arg, struct kx_source **ret, struct kx_error *error)
{
	return kx_source_open_typed(arg, NULL, ret, error);
}

kx_status kx_source_open_typed(const char *arg, const struct kx_schema *schema, struct kx_source **ret,
			       struct kx_error *error)
{
	struct stat info;
	char *root;

	if (stat(arg, &info))
		return kx_error_from_errno(error, errno, "%s", arg[0] ? arg : "a source with an empty name");
	if (!S_ISDIR(info.st_mode) && !S_ISREG(info.st_mode))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
				    "%s: a source is a folder, a file or a manifest (.jsonl, .csv), and this is none",
				    arg);
	/* Of a folder the real path, so that its root is the same however it was typed. The name of a file is kept even
	 * when it is a link, because it becomes its id. */
	root = S_ISDIR(info.st_mode) ? realpath(arg, NULL) : real_path_of_file(arg);
	if (!root)
		return kx_error_from_errno(error, errno, "%s", arg);
	if (S_ISDIR(info.st_mode))
		return kx_source_open_folder(arg, root, ret, error);
	if (is_manifest(arg))
		return kx_source_open_manifest(arg, root, schema, ret, error);
	return kx_source_open_file(arg, root, ret, error);
}

void kx_source_free(struct kx_source *source)
{
	if (!source)
		return;
	source->kind->done(source);
	free(source->root);
	free(source);
}

void kx_source_cleanup(struct kx_source **source)
{
	kx_source_free(*source);
	*source = NULL;
}

const char *kx_source_root(const struct kx_source *source)
{
	return source->root;
}

int kx_source_is_complete(const struct kx_source *source)
{
	return source->is_complete;
}

kx_status kx_source_next(struct kx_source *source, struct kx_source_item **ret, struct kx_error *error)
{
	return source->kind->next(source, ret, error);
}
