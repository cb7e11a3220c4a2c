#include "shard/query/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/fs.h"
#include "common/base/str.h"
#include "shard/index/record.h"
#include "shard/query/snapshot_internal.h"

#define AHEAD_BLOCKS 4u

void kx_snapshot_ref_encode(const struct kx_snapshot_ref *ref, uint8_t out[KX_SNAPSHOT_REF_BYTES])
{
	kx_le32_put(out, KX_SNAPSHOT_FORMAT);
	kx_le32_put(out + 4, ref->check);
	kx_le64_put(out + 8, ref->id);
	kx_le64_put(out + 16, ref->bytes);
}

kx_status kx_snapshot_ref_decode(const void *bytes, size_t len, struct kx_snapshot_ref *ret)
{
	const uint8_t *at = bytes;

	if (len != KX_SNAPSHOT_REF_BYTES || kx_le32_get(at) != KX_SNAPSHOT_FORMAT)
		return KX_ECORRUPT;
	*ret = (struct kx_snapshot_ref){.check = kx_le32_get(at + 4), .id = kx_le64_get(at + 8), .bytes = kx_le64_get(at + 16)};
	return KX_OK;
}

char *kx_snapshot_path(const char *dir, uint64_t id)
{
	return kx_strf("%s/%016" PRIx64 KX_SNAPSHOT_SUFFIX, dir, id);
}

struct kx_snapshot {
	const uint8_t *map;
	uint64_t bytes;
	struct kx_snapshot_head head;
	const struct kx_snapshot_section *sections;
	const uint32_t *checks;
	uint64_t *seen; /* a bit a block */
	bool damaged;
};

uint64_t kx_snapshot_blocks(uint64_t bytes)
{
	return (bytes - KX_SNAPSHOT_HEAD + KX_SNAPSHOT_BLOCK - 1) / KX_SNAPSHOT_BLOCK;
}

static kx_status map_file(struct kx_snapshot *snapshot, const char *path, uint64_t bytes, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat info;
	void *map;

	if (fd < 0 || fstat(fd, &info))
		return kx_error_from_errno(error, errno, "%s", path);
	if ((uint64_t)info.st_size != bytes || bytes < KX_SNAPSHOT_HEAD)
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "%s: %" PRIu64 " bytes, not %" PRIu64, path,
				    (uint64_t)info.st_size, bytes);
	map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return kx_error_from_errno(error, errno, "%s", path);
	(void)madvise(map, bytes, MADV_RANDOM); /* rows lie anywhere; what is read whole is asked for */
	snapshot->map = map;
	snapshot->bytes = bytes;
	return KX_OK;
}

static bool read_head(struct kx_snapshot *snapshot, const struct kx_snapshot_ref *ref)
{
	struct kx_snapshot_head *head = &snapshot->head;
	uint64_t tables;

	memcpy(head, snapshot->map, sizeof(*head));
	if (head->magic != KX_SNAPSHOT_MAGIC || head->format != KX_SNAPSHOT_FORMAT || head->id != ref->id ||
	    head->tables_at < KX_SNAPSHOT_HEAD || head->tables_at % 64 || head->tables_at > snapshot->bytes)
		return false;
	tables = head->section_count * sizeof(struct kx_snapshot_section) + kx_snapshot_blocks(head->tables_at) * sizeof(uint32_t);
	if (snapshot->bytes - head->tables_at != tables ||
	    kx_crc32c(kx_crc32c(0, head, sizeof(*head)), snapshot->map + head->tables_at, tables) != ref->check)
		return false;
	snapshot->sections = (const void *)(snapshot->map + head->tables_at);
	snapshot->checks = (const void *)(snapshot->sections + head->section_count);
	for (uint32_t i = 0; i < head->section_count; i++) {
		const struct kx_snapshot_section *section = &snapshot->sections[i];

		if (section->at < KX_SNAPSHOT_HEAD || section->at > head->tables_at || section->len > head->tables_at - section->at)
			return false;
	}
	return true;
}

kx_status kx_snapshot_open(const char *dir, const struct kx_snapshot_ref *ref, struct kx_snapshot **ret,
			   struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *path = kx_snapshot_path(dir, ref->id);
	struct kx_snapshot *snapshot = calloc(1, sizeof(*snapshot));
	kx_status status = path && snapshot ? map_file(snapshot, path, ref->bytes, error) : kx_error_nomem(error);

	if (!status && !read_head(snapshot, ref))
		status = kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "%s: it is not as it was made", path);
	if (!status) {
		snapshot->seen = calloc(kx_snapshot_blocks(snapshot->head.tables_at) / 64 + 1, sizeof(*snapshot->seen));
		status = snapshot->seen ? KX_OK : kx_error_nomem(error);
	}
	if (status)
		kx_snapshot_close(snapshot);
	else
		*ret = snapshot;
	return status;
}

void kx_snapshot_close(struct kx_snapshot *snapshot)
{
	if (!snapshot)
		return;
	if (snapshot->map)
		(void)munmap((void *)(uintptr_t)snapshot->map, snapshot->bytes);
	free(snapshot->seen);
	free(snapshot);
}

const struct kx_snapshot_section *kx_snapshot_find(const struct kx_snapshot *snapshot, uint32_t kind, uint32_t number)
{
	for (uint32_t i = 0; i < snapshot->head.section_count; i++)
		if (snapshot->sections[i].kind == kind && snapshot->sections[i].number == number)
			return &snapshot->sections[i];
	return NULL;
}

static bool check_block(struct kx_snapshot *snapshot, uint64_t block)
{
	const uint64_t from = KX_SNAPSHOT_HEAD + block * KX_SNAPSHOT_BLOCK, left = snapshot->head.tables_at - from;

	if (snapshot->seen[block / 64] >> block % 64 & 1u)
		return true;
	if (kx_crc32c(0, snapshot->map + from, left < KX_SNAPSHOT_BLOCK ? left : KX_SNAPSHOT_BLOCK) != snapshot->checks[block])
		return false;
	snapshot->seen[block / 64] |= UINT64_C(1) << block % 64;
	return true;
}

/* Much at once is read ahead of checking it. */
static void read_ahead(const struct kx_snapshot *snapshot, uint64_t from, uint64_t len)
{
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), first = from / page * page;

	(void)madvise((void *)(uintptr_t)(snapshot->map + first), from + len - first, MADV_WILLNEED);
}

const void *kx_snapshot_see(struct kx_snapshot *snapshot, const struct kx_snapshot_section *section, uint64_t from,
			    uint64_t len)
{
	bool good = section && from <= section->len && len <= section->len - from;

	if (good && len) {
		const uint64_t at = section->at + from - KX_SNAPSHOT_HEAD;

		if (len > AHEAD_BLOCKS * KX_SNAPSHOT_BLOCK)
			read_ahead(snapshot, section->at + from, len);
		for (uint64_t block = at / KX_SNAPSHOT_BLOCK; good && block <= (at + len - 1) / KX_SNAPSHOT_BLOCK; block++)
			good = check_block(snapshot, block);
	}
	if (good)
		return snapshot->map + section->at + from;
	snapshot->damaged = true;
	return NULL;
}

void kx_snapshot_ahead(const struct kx_snapshot *snapshot, const struct kx_snapshot_section *section)
{
	read_ahead(snapshot, section->at, section->len);
}

bool kx_snapshot_is_damaged(const struct kx_snapshot *snapshot)
{
	return snapshot->damaged;
}

void kx_snapshot_spoil(struct kx_snapshot *snapshot)
{
	snapshot->damaged = true;
}
