#include "worker/model/cache.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/fs.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/macros.h"
#include "common/base/str.h"
#include "worker/model/prune.h"

/* Another one whenever the same model would be compiled in another way, with other properties for instance. */
#define FORMAT 1
#define ENTRY_BYTES_MAX ((off_t)4 << 30)
#define LANES 4
/* A dozen versions of lite0 and YAMNet; a fleet's machine that runs several bundles uses a part of it each day. */
#define KEPT_BYTES_MAX ((uint64_t)512 << 20)
#define KEPT_UNUSED_S (24 * 3600)

struct trailer {
	uint64_t magic;
	uint64_t len;
	uint64_t sum;
};

static const uint64_t magic = 0x314c444f4d584bull; /* "KXMODL1" */

/* ---- names ---- */

static char *property(const struct kx_runtime *runtime, const char *key)
{
	char *value = NULL;

	return ov_core_get_property(kx_runtime_core(runtime), "CPU", key, &value) == OK ? value : NULL;
}

/* The plug-in chooses by what the CPU can do, so that what it chose serves a CPU that can do the same. */
static char *describe(const struct kx_runtime *runtime, const struct kx_bundle *bundle, size_t batch,
		      enum kx_precision precision)
{
	char *name = property(runtime, "FULL_DEVICE_NAME");
	char *abilities = property(runtime, "OPTIMIZATION_CAPABILITIES");
	char cpu[KX_RUNTIME_CPU_MAX], sha256[2 * KX_SHA_LEN + 1];
	ov_version_t version = {0};
	char *text = NULL;

	kx_runtime_cpu(cpu);
	kx_hex_encode(bundle->sha256, sizeof(bundle->sha256), sha256);
	if (name && abilities && ov_get_openvino_version(&version) == OK) {
		text = kx_strf("%d %s %s %s %s %s %zu %s", FORMAT, version.buildNumber, name, abilities, cpu, sha256,
			       batch, kx_precision_name(precision));
		ov_version_free(&version);
	}
	ov_free(name);
	ov_free(abilities);
	return text;
}

char *kx_cache_path(const char *dir, const struct kx_runtime *runtime, const struct kx_bundle *bundle, size_t batch,
		    enum kx_precision precision)
{
	KX_CLEANUP(kx_cleanup_free) char *text = describe(runtime, bundle, batch, precision);
	uint8_t digest[KX_SHA_LEN];
	char hex[2 * KX_SHA_LEN + 1];

	if (!text || kx_sha256_bytes(text, strlen(text), digest) != KX_OK)
		return NULL;
	kx_hex_encode(digest, sizeof(digest), hex);
	return kx_strf("%s/%s-%.32s", dir, bundle->name, hex);
}

/* ---- entries ---- */

/* Against damage, not against malice: that is what the file's owner is looked at for. Each step can be undone, so that
 * one word that changes always changes the sum. At 20 GB/s it costs a tenth of what SHA-256 would. */
static uint64_t sum_of(const uint8_t *bytes, size_t len)
{
	const uint64_t odd = 0x9e3779b97f4a7c15ull;
	uint64_t lanes[LANES] = {1, 2, 3, 4}, word, sum = len;
	size_t at = 0;

	for (; at + sizeof(lanes) <= len; at += sizeof(lanes)) {
		for (size_t i = 0; i < LANES; i++) {
			memcpy(&word, bytes + at + i * sizeof(word), sizeof(word));
			lanes[i] = (lanes[i] ^ word) * odd;
			lanes[i] ^= lanes[i] >> 32;
		}
	}
	for (; at < len; at++)
		sum = (sum ^ bytes[at]) * odd;
	for (size_t i = 0; i < LANES; i++)
		sum = ((sum ^ (sum >> 29)) * odd) ^ lanes[i];
	return sum;
}

static bool map(int fd, size_t len, struct kx_cached *ret)
{
	void *bytes = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);

	if (bytes == MAP_FAILED)
		return false;
	*ret = (struct kx_cached){.bytes = bytes, .file_len = len};
	return true;
}

static bool is_ours(const struct stat *info)
{
	return S_ISREG(info->st_mode) && info->st_uid == geteuid() && !(info->st_mode & (S_IWGRP | S_IWOTH)) &&
	       info->st_size > (off_t)sizeof(struct trailer) && info->st_size <= ENTRY_BYTES_MAX;
}

static bool is_whole(struct kx_cached *cached)
{
	struct trailer trailer;

	cached->len = cached->file_len - sizeof(trailer);
	memcpy(&trailer, (const uint8_t *)cached->bytes + cached->len, sizeof(trailer));
	return trailer.magic == magic && trailer.len == cached->len &&
	       trailer.sum == sum_of(cached->bytes, cached->len);
}

bool kx_cache_open(const char *path, struct kx_cached *ret)
{
	KX_CLEANUP(kx_cleanup_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct kx_cached cached = {0};
	struct stat info;

	if (fd < 0 || fstat(fd, &info) != 0 || !is_ours(&info) || !map(fd, (size_t)info.st_size, &cached))
		return false;
	if (!is_whole(&cached)) {
		kx_cache_close(&cached);
		kx_cache_drop(path);
		return false;
	}
	(void)futimens(fd, NULL); /* used: kx_cache_prune() goes by it */
	*ret = cached;
	return true;
}

void kx_cache_close(struct kx_cached *cached)
{
	if (cached->bytes)
		(void)munmap(cached->bytes, cached->file_len);
	*cached = (struct kx_cached){0};
}

void kx_cache_drop(const char *path)
{
	kx_log(KX_LOG_DEBUG, "%s is not used: it is damaged, or OpenVINO does not take it", path);
	(void)unlink(path);
}

static bool append_trailer(const char *path)
{
	KX_CLEANUP(kx_cleanup_close) int fd = open(path, O_RDWR | O_APPEND | O_CLOEXEC);
	struct trailer trailer = {.magic = magic};
	struct kx_cached written = {0};
	struct stat info;

	if (fd < 0 || fstat(fd, &info) != 0 || info.st_size == 0 || !map(fd, (size_t)info.st_size, &written))
		return false;
	trailer.len = written.file_len;
	trailer.sum = sum_of(written.bytes, written.file_len);
	kx_cache_close(&written);
	return write(fd, &trailer, sizeof(trailer)) == (ssize_t)sizeof(trailer);
}

/* A file that only we can write to, for its name: OpenVINO opens it again. */
static bool make_file(char *path)
{
	KX_CLEANUP(kx_cleanup_close) int fd = mkstemp(path);

	return fd >= 0;
}

void kx_cache_save(const char *path, const ov_compiled_model_t *compiled)
{
	KX_CLEANUP(kx_cleanup_free) char *dir = kx_strndup(path, (size_t)(strrchr(path, '/') - path));
	KX_CLEANUP(kx_cleanup_free) char *temporary = kx_strf("%s.XXXXXX", path);
	bool made = dir && temporary && kx_fs_mkdirs(dir, NULL) == KX_OK && make_file(temporary);
	bool saved = made && !kx_fault("model.cache") && ov_compiled_model_export_model(compiled, temporary) == OK &&
		     append_trailer(temporary) && rename(temporary, path) == 0;

	if (made && !saved)
		(void)unlink(temporary);
	if (!saved)
		kx_log(KX_LOG_DEBUG, "the compiled model is not kept in %s", path);
	else
		kx_cache_prune(dir, &(struct kx_prune_limits){.bytes_max = KEPT_BYTES_MAX,
							      .unused_s = KEPT_UNUSED_S,
							      .now_s = (int64_t)(kx_clock_wall_ms() / 1000)});
}
