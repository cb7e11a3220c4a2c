/* What the files of coordinator/source share; nobody else includes it. Layer: coordinator/source. */
#ifndef KX_COORDINATOR_SOURCE_INTERNAL_H
#define KX_COORDINATOR_SOURCE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

#include "coordinator/source/source.h"

struct kx_source_kind {
	kx_status (*next)(struct kx_source *source, struct kx_source_item **ret, struct kx_error *error);
	void (*done)(struct kx_source *source); /* what is the kind's own; accepts a half-built one */
};

/* First member of each kind's struct, which is allocated zeroed and in one piece. */
struct kx_source {
	const struct kx_source_kind *kind;
	char *root;
	bool is_complete;
};

/* Each takes over root, also when it fails. arg is what the user typed, for messages. */
kx_status kx_source_open_folder(const char *arg, char *root, struct kx_source **ret, struct kx_error *error);
kx_status kx_source_open_file(const char *arg, char *root, struct kx_source **ret, struct kx_error *error);
kx_status kx_source_open_manifest(const char *arg, char *root, const struct kx_schema *schema, struct kx_source **ret,
				  struct kx_error *error);

/* What stands under a name. */
struct kx_source_look {
	enum kx_reason reason; /* KX_REASON_NONE: a regular file that may be read, or a folder */
	bool is_folder;
	bool is_unknown;       /* it can't be told: may be a folder, too */
	bool is_gone;          /* there is no such entry, not even a dangling link */
	char message[160];
};
/* Follows links. folder_fd may be AT_FDCWD. Blocks on disk; opens nothing, so a named pipe can't hold it up. */
void kx_source_look(int folder_fd, const char *name, struct kx_source_look *ret);
/* The same for a failure met elsewhere. */
void kx_source_look_failed(int errno_value, struct kx_source_look *ret);

/* KX_ENOMEM only. An item with no field set but these; NULL stands for "". */
kx_status kx_source_item_new(const char *video_id, const char *path, struct kx_source_item **ret) KX_MUST_CHECK;
kx_status kx_source_item_refuse(struct kx_source_item *item, enum kx_reason reason, const char *message) KX_MUST_CHECK;

/* The id of a path relative to its root, as source.h says. One that would be longer than KX_ID_MAX is cut and ends in
 * "~" and the SHA-256 of the whole. NULL when out of memory. */
char *kx_source_id_of_path(const char *relative);

#endif
