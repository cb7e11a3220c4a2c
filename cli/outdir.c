#include "cli/outdir.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/fs.h"
#include "common/base/str.h"

kx_status kx_outdir_make(const char *name, struct kx_outdir *ret, struct kx_error *error)
{
	char here[PATH_MAX];
	size_t len = strlen(name);
	while (len > 1 && name[len - 1] == '/')
		len--;
	if (getcwd(here, sizeof(here)) == NULL)
		return kx_error_from_errno(error, errno, "the current folder");
	ret->dir = name[0] == '/' ? kx_strndup(name, len) : kx_strf("%s/%.*s", here, (int)len, name);
	if (ret->dir != NULL)
		ret->part = kx_strf("%s.part-%d", ret->dir, (int)getpid());
	if (ret->part == NULL)
		return kx_error_nomem(error);
	if (kx_fs_exists(ret->dir))
		return kx_error_set(error, KX_EEXIST, KX_ERROR_FATAL, "%s is there already. Name a folder that is not",
				    ret->dir);
	return mkdir(ret->part, 0777) == 0 ? KX_OK : kx_error_from_errno(error, errno, "making %s", ret->part);
}

kx_status kx_outdir_keep(const struct kx_outdir *target, struct kx_error *error)
{
	return kx_fs_move(target->part, target->dir, error);
}

kx_status kx_outdir_drop(const struct kx_outdir *target, kx_status status, struct kx_error *error)
{
	if (kx_fs_remove_tree(target->part, NULL) == KX_OK)
		return status;
	return kx_error_prefix(error, status, "%s can't be removed and is of no use; ", target->part);
}

void kx_outdir_done(struct kx_outdir *target)
{
	free(target->dir);
	free(target->part);
	*target = (struct kx_outdir){0};
}
