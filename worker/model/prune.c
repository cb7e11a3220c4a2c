#include "worker/model/prune.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/macros.h"
#include "common/base/str.h"

#define HASH_LEN 32 /* hexadecimal digits behind the bundle's name, see kx_cache_path() */
#define TEMPORARY_LEN 7 /* ".XXXXXX" of mkstemp() */
#define ENTRIES_MAX 4096 /* looked at: a bound for memory, the next run sees the rest */

struct entry {
	char *name;
	uint64_t bytes;
	int64_t used_s;
};

struct entries {
	struct entry *of; /* [ENTRIES_MAX] */
	size_t count;
	uint64_t bytes;
};

/* "lite0-<hash>" */
static bool is_entry(const char *name, size_t len)
{
	if (len < HASH_LEN + 2 || name[0] == '.' || name[len - HASH_LEN - 1] != '-')
		return false;
	return strspn(name + len - HASH_LEN, "0123456789abcdef") >= HASH_LEN;
}

static bool is_temporary(const char *name, size_t len)
{
	return len > TEMPORARY_LEN && name[len - TEMPORARY_LEN] == '.' && is_entry(name, len - TEMPORARY_LEN);
}

static void add(struct entries *entries, const char *name, const struct stat *info)
{
	struct entry entry = {.name = kx_strdup(name), .bytes = (uint64_t)info->st_size, .used_s = info->st_mtim.tv_sec};

	if (!entry.name)
		return;
	entries->of[entries->count++] = entry;
	entries->bytes += entry.bytes;
}

static void read_entries(DIR *dir, const struct kx_prune_limits *limits, struct entries *entries)
{
	const struct dirent *at;

	while (entries->count < ENTRIES_MAX && (at = readdir(dir)) != NULL) {
		size_t len = strlen(at->d_name);
		bool temporary = is_temporary(at->d_name, len);
		struct stat info;

		if (!temporary && !is_entry(at->d_name, len))
			continue;
		if (fstatat(dirfd(dir), at->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(info.st_mode))
			continue;
		if (!temporary)
			add(entries, at->d_name, &info);
		else if (limits->now_s - info.st_mtim.tv_sec >= limits->unused_s)
			(void)unlinkat(dirfd(dir), at->d_name, 0);
	}
}

static int by_use(const void *a, const void *b)
{
	const struct entry *left = a, *right = b;

	return left->used_s < right->used_s ? -1 : left->used_s > right->used_s;
}

static void drop_surplus(DIR *dir, const struct kx_prune_limits *limits, struct entries *entries)
{
	qsort(entries->of, entries->count, sizeof(*entries->of), by_use);
	for (size_t i = 0; i < entries->count && entries->bytes > limits->bytes_max; i++) {
		const struct entry *entry = &entries->of[i];

		if (limits->now_s - entry->used_s < limits->unused_s)
			return;
		kx_log(KX_LOG_DEBUG, "the compiled model %s was not used for long and is deleted", entry->name);
		(void)unlinkat(dirfd(dir), entry->name, 0);
		entries->bytes -= entry->bytes;
	}
}

void kx_cache_prune(const char *dir, const struct kx_prune_limits *limits)
{
	KX_CLEANUP(kx_cleanup_closedir) DIR *opened = opendir(dir);
	struct entries entries = {.of = opened ? calloc(ENTRIES_MAX, sizeof(*entries.of)) : NULL};

	if (entries.of) {
		read_entries(opened, limits, &entries);
		drop_surplus(opened, limits, &entries);
	}
	for (size_t i = 0; i < entries.count; i++)
		free(entries.of[i].name);
	free(entries.of);
}
