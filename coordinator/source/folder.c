/* A folder, walked depth first with a stack of our own. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/log.h"
#include "coordinator/source/internal.h"
#include "coordinator/source/names.h"

#define LEVELS_MAX 128 /* each holds a descriptor open */
#define NAMES_WINDOW 32768

struct level {
	DIR *dir;
	dev_t dev;
	ino_t ino;
	size_t path_len; /* of the folder, in folder.path; without the slash at the end */
	struct kx_names names;
};

struct folder {
	struct kx_source source;
	struct kx_buf path; /* of what is being looked at, absolute */
	size_t root_len;
	size_t depth;
	struct level levels[LEVELS_MAX];
};

static void pop(struct folder *folder)
{
	struct level *level = &folder->levels[--folder->depth];

	closedir(level->dir);
	kx_names_done(&level->names);
}

/* Takes the descriptor over. */
static kx_status push(struct folder *folder, int *fd, const struct stat *info, struct kx_error *error)
{
	DIR *dir = fdopendir(*fd);

	if (!dir)
		return kx_error_nomem(error);
	*fd = -1;
	folder->levels[folder->depth++] = (struct level){
		.dir = dir,
		.dev = info->st_dev,
		.ino = info->st_ino,
		.path_len = folder->path.len,
		.names = {.window = NAMES_WINDOW},
	};
	return KX_OK;
}

static bool is_on_stack(const struct folder *folder, const struct stat *info)
{
	for (size_t i = 0; i < folder->depth; i++) {
		if (folder->levels[i].ino == info->st_ino && folder->levels[i].dev == info->st_dev)
			return true;
	}
	return false;
}

/* The item for the path that is being looked at. */
static kx_status make_item(const struct folder *folder, const struct kx_source_look *look,
			   struct kx_source_item **ret, struct kx_error *error)
{
	const char *path = (const char *)folder->path.data;
	char *id KX_CLEANUP(kx_cleanup_free) = kx_source_id_of_path(path + folder->root_len + 1);
	struct kx_source_item *item KX_CLEANUP(kx_source_item_cleanup) = NULL;

	if (!id || kx_source_item_new(id, path, &item) || kx_source_item_refuse(item, look->reason, look->message))
		return kx_error_nomem(error);
	*ret = KX_STEAL(item);
	return KX_OK;
}

/* What is in it may have been indexed before and be there still, so nothing that is missed may be called deleted. */
static kx_status cannot_enter(struct folder *folder, const struct kx_source_look *look, struct kx_source_item **ret,
			      struct kx_error *error)
{
	folder->source.is_complete = false;
	return make_item(folder, look, ret, error);
}

static kx_status enter(struct folder *folder, int parent_fd, const char *name, struct kx_source_item **ret,
		       struct kx_error *error)
{
	int fd KX_CLEANUP(kx_cleanup_close) = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct kx_source_look look = {.reason = KX_REASON_UNSUPPORTED};
	struct stat info;

	if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
		return kx_error_from_errno(error, errno, "%s", (const char *)folder->path.data);
	if (fd < 0 && errno == ENOENT) /* removed a moment ago */
		return KX_OK;
	if (fd < 0 || fstat(fd, &info)) {
		kx_source_look_failed(errno, &look);
		return cannot_enter(folder, &look, ret, error);
	}
	if (is_on_stack(folder, &info)) {
		kx_log(KX_LOG_INFO, "%s: leads back into a folder that is being walked; not followed",
		       (const char *)folder->path.data);
		return KX_OK;
	}
	if (folder->depth == LEVELS_MAX) {
		snprintf(look.message, sizeof(look.message),
			 "more than %d folders deep; name it as a source of its own", LEVELS_MAX);
		return cannot_enter(folder, &look, ret, error);
	}
	return push(folder, &fd, &info, error);
}

static kx_status set_path(struct folder *folder, const struct level *level, const char *name)
{
	folder->path.len = level->path_len;
	return kx_buf_printf(&folder->path, "/%s", name);
}

/* Gives an item, goes down a level, or passes over what is no item. */
static kx_status visit(struct folder *folder, const char *name, struct kx_source_item **ret, struct kx_error *error)
{
	const struct level *level = &folder->levels[folder->depth - 1];
	struct kx_source_look look;

	if (set_path(folder, level, name))
		return kx_error_nomem(error);
	kx_source_look(dirfd(level->dir), name, &look);
	if (look.is_gone)
		return KX_OK;
	/* By its descriptor it can be reached; those who open it later have its path only. */
	if (look.reason == KX_REASON_NONE && folder->path.len >= PATH_MAX)
		kx_source_look_failed(ENAMETOOLONG, &look);
	else if (look.is_folder)
		return enter(folder, dirfd(level->dir), name, ret, error);
	if (look.is_folder || look.is_unknown)
		return cannot_enter(folder, &look, ret, error);
	return make_item(folder, &look, ret, error);
}

/* Reading on in the folder at the top failed: it is an item, and the walk goes on beside it. Of the root it ends. */
static kx_status give_up_level(struct folder *folder, const struct kx_error *cause, struct kx_source_item **ret,
			       struct kx_error *error)
{
	struct kx_source_look look = {.reason = KX_REASON_READ_FAILED};

	if (cause->status == KX_ENOMEM)
		return kx_error_nomem(error);
	if (folder->depth == 1)
		return kx_error_set(error, cause->status, cause->class, "%s: %s", folder->source.root, cause->message);
	snprintf(look.message, sizeof(look.message), "%.100s", cause->message);
	folder->path.len = folder->levels[folder->depth - 1].path_len;
	folder->path.data[folder->path.len] = '\0';
	pop(folder);
	return cannot_enter(folder, &look, ret, error);
}

static kx_status folder_next(struct kx_source *source, struct kx_source_item **ret, struct kx_error *error)
{
	struct folder *folder = (struct folder *)source;
	struct kx_source_item *item = NULL;

	while (folder->depth && !item) {
		struct level *level = &folder->levels[folder->depth - 1];
		struct kx_error cause = {0};
		const char *name;
		kx_status status = kx_names_next(&level->names, level->dir, &name, &cause);

		if (status)
			status = give_up_level(folder, &cause, &item, error);
		else if (name)
			status = visit(folder, name, &item, error);
		else
			pop(folder);
		if (status)
			return status;
	}
	if (!item)
		return KX_ENOTFOUND;
	*ret = item;
	return KX_OK;
}

static void folder_done(struct kx_source *source)
{
	struct folder *folder = (struct folder *)source;

	while (folder->depth)
		pop(folder);
	kx_buf_done(&folder->path);
}

static const struct kx_source_kind folder_kind = {.next = folder_next, .done = folder_done};

kx_status kx_source_open_folder(const char *arg, char *root, struct kx_source **ret, struct kx_error *error)
{
	struct kx_source *source KX_CLEANUP(kx_source_cleanup) = NULL;
	int fd KX_CLEANUP(kx_cleanup_close) = -1;
	struct folder *folder = calloc(1, sizeof(*folder));
	struct stat info;

	if (!folder) {
		free(root);
		return kx_error_nomem(error);
	}
	source = &folder->source;
	*source = (struct kx_source){.kind = &folder_kind, .root = root, .is_complete = true};
	folder->root_len = strcmp(root, "/") == 0 ? 0 : strlen(root);
	folder->path.max = KX_PATH_MAX;
	if (kx_buf_append(&folder->path, root, folder->root_len))
		return kx_error_nomem(error);
	fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &info))
		return kx_error_from_errno(error, errno, "%s", arg);
	kx_status status = push(folder, &fd, &info, error);
	if (!status)
		*ret = KX_STEAL(source);
	return status;
}
