#include "coordinator/source/names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/fault.h"
#include "common/base/str.h"

#define FIRST_CAP 64

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void drop_from(struct kx_names *names, size_t from)
{
	for (size_t i = from; i < names->count; i++)
		free(names->items[i]);
	names->count = from;
}

void kx_names_done(struct kx_names *names)
{
	drop_from(names, 0);
	free(names->items);
	free(names->last);
	*names = (struct kx_names){.window = names->window};
}

/* Sorts, and keeps the smallest `window`. */
static void trim(struct kx_names *names)
{
	if (names->count)
		qsort(names->items, names->count, sizeof(names->items[0]), compare);
	if (names->count > names->window) {
		drop_from(names, names->window);
		names->more = true;
	}
}

static bool is_wanted(const struct kx_names *names, const char *name)
{
	if (name[0] == '.')
		return false;
	if (names->last && strcmp(name, names->last) <= 0)
		return false;
	/* Once trimmed, the window's end is the largest that can still count. */
	return !names->more || strcmp(name, names->items[names->window - 1]) < 0;
}

static kx_status add(struct kx_names *names, const char *name)
{
	if (names->count == 2 * names->window)
		trim(names);
	if (names->count == names->cap) {
		size_t cap = names->cap ? 2 * names->cap : FIRST_CAP;
		char **items = realloc(names->items, cap * sizeof(*items));

		if (!items)
			return KX_ENOMEM;
		names->items = items;
		names->cap = cap;
	}
	names->items[names->count] = kx_strdup(name);
	if (!names->items[names->count])
		return KX_ENOMEM;
	names->count++;
	return KX_OK;
}

static void start_again(struct kx_names *names, DIR *dir)
{
	if (names->count) {
		free(names->last);
		names->last = KX_STEAL(names->items[names->count - 1]);
	}
	drop_from(names, 0);
	names->at = 0;
	names->more = false;
	names->filled = true;
	rewinddir(dir);
}

static kx_status fill(struct kx_names *names, DIR *dir, struct kx_error *error)
{
	start_again(names, dir);
	for (;;) {
		errno = 0;
		const struct dirent *entry = kx_fault("source.read") ? NULL : readdir(dir);

		if (!entry)
			break;
		if (is_wanted(names, entry->d_name) && add(names, entry->d_name))
			return kx_error_nomem(error);
	}
	if (errno)
		return kx_error_from_errno(error, errno, "reading the folder");
	trim(names);
	return KX_OK;
}

kx_status kx_names_next(struct kx_names *names, DIR *dir, const char **ret, struct kx_error *error)
{
	if (names->at == names->count && (!names->filled || names->more)) {
		kx_status status = fill(names, dir, error);

		if (status)
			return status;
	}
	*ret = names->at < names->count ? names->items[names->at++] : NULL;
	return KX_OK;
}
