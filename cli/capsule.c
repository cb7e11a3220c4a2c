#include "cli/capsule.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cli/cli.h"
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "common/fetch/fetch.h"
#include "coordinator/ledger/ledger.h"
#include "worker/media/media.h"

#define FORMAT 1
#define NAME_BYTES 8 /* of the hash of an id */
#define NAME_LEN (2 * NAME_BYTES)
#define REQUEST_MAX (64u << 10)
#define JSON_MAX (1u << 20)

struct kx_capsules {
	char *data_dir;
	char *dir;
	uint32_t attempts;
	pthread_mutex_t lock; /* held while one is written */
	size_t written;
};

/* ---- names and texts ---- */

static kx_status name_of(const char *video_id, char ret[NAME_LEN + 1])
{
	uint8_t sha[KX_SHA256_LEN];
	kx_status status = kx_sha256_bytes(video_id, strlen(video_id), sha);
	if (status == KX_OK)
		kx_hex_encode(sha, NAME_BYTES, ret);
	return status;
}

char *kx_capsule_path(const char *data_dir, const char *video_id)
{
	char name[NAME_LEN + 1];
	return name_of(video_id, name) == KX_OK ? kx_strf("%s/capsules/%s", data_dir, name) : NULL;
}

/* JSON has UTF-8 only; file names and decoders have what they like. */
static json_t *text(const char *from)
{
	if (kx_utf8_valid(from, strlen(from)))
		return json_string(from);
	char *clean = kx_strdup(from);
	for (char *c = clean; clean != NULL && *c != '\0'; c++)
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	json_t *json = clean != NULL ? json_string(clean) : NULL;
	free(clean);
	return json;
}

static void cpu_name(char *ret, size_t size)
{
	KX_CLEANUP(kx_cleanup_fclose) FILE *file = fopen("/proc/cpuinfo", "re");
	char line[256];
	snprintf(ret, size, "unknown");
	while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
		const char *colon = strchr(line, ':');
		if (strncmp(line, "model name", 10) != 0 || colon == NULL)
			continue;
		snprintf(ret, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
		return;
	}
}

static json_t *versions(void)
{
	struct utsname system;
	char cpu[128];
	cpu_name(cpu, sizeof(cpu));
	if (uname(&system) != 0)
		return NULL;
	return json_pack("{s:s, s:s, s:s, s:s, s:s}", "kinodex", KX_VERSION, "media", kx_media_software(), "kernel",
			 system.release, "machine", system.machine, "cpu", cpu);
}

static json_t *job(const struct kx_decode_request *request)
{
	if (request->purpose == KX_DECODE_PROBE)
		return json_pack("{s:s, s:I, s:I, s:I}", "purpose", "probe", "wall_limit_ms",
				 (json_int_t)request->wall_limit_ms, "cpu_limit_ms", (json_int_t)request->cpu_limit_ms,
				 "memory_limit_bytes", (json_int_t)request->memory_limit_bytes);
	return json_pack("{s:s, s:b, s:b, s:f, s:s, s:I, s:I, s:i, s:i, s:I, s:I, s:I}", "purpose", "sample", "visual",
			 (request->tracks & KX_TRACK_VISUAL) != 0, "audio", (request->tracks & KX_TRACK_AUDIO) != 0, "fps",
			 request->fps, "decode", kx_decode_mode_name(request->decode_mode), "start_us",
			 (json_int_t)request->start_us, "end_us", (json_int_t)request->end_us, "width",
			 (int)request->width, "height", (int)request->height, "wall_limit_ms",
			 (json_int_t)request->wall_limit_ms, "cpu_limit_ms", (json_int_t)request->cpu_limit_ms,
			 "memory_limit_bytes", (json_int_t)request->memory_limit_bytes);
}

/* ---- writing one ---- */

/* Evidence, not data: a crash of the machine may take it, and nothing is synced. */
static kx_status write_file(const char *dir, const char *name, const void *bytes, size_t len, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *path = kx_fs_join(dir, name);
	FILE *file = path != NULL ? fopen(path, "we") : NULL;
	if (file == NULL)
		return path != NULL ? kx_error_from_errno(error, errno, "writing %s", path) : kx_error_nomem(error);
	bool failed = fwrite(bytes, 1, len, file) != len;
	failed |= fclose(file) != 0;
	return failed ? kx_error_from_errno(error, errno, "writing %s", path) : KX_OK;
}

static kx_status write_json(const char *dir, json_t *json, struct kx_error *error)
{
	char *dump = json != NULL ? json_dumps(json, JSON_INDENT(2)) : NULL;
	kx_status status = dump != NULL ? write_file(dir, "capsule.json", dump, strlen(dump), error) : kx_error_nomem(error);
	free(dump);
	return status;
}

static kx_status write_request(const char *dir, const struct kx_failure *failure, const char *source,
			       struct kx_error *error)
{
	struct kx_decode_request request = *failure->request;
	struct kx_buf packed = {.max = REQUEST_MAX};
	request.endpoint = (char *)"none"; /* a record without one is refused */
	request.name = (char *)source;
	kx_status status = kx_decode_request_pack(&request, &packed);
	if (status == KX_OK)
		status = write_file(dir, "request.pb", packed.data, packed.len, error);
	else
		kx_error_set(error, status, KX_ERROR_FATAL, "request of %s: %s", failure->name, kx_status_name(status));
	kx_buf_done(&packed);
	return status;
}

/* Of an input that is read whole anyway. */
static kx_status copy_input(const char *dir, int fd, size_t bytes, struct kx_error *error)
{
	uint8_t *copy = malloc(bytes + 1);
	if (copy == NULL)
		return kx_error_nomem(error);
	ssize_t got = pread(fd, copy, bytes, 0);
	kx_status status = got >= 0 ? write_file(dir, "input", copy, (size_t)got, error)
				    : kx_error_from_errno(error, errno, "reading the input");
	free(copy);
	return status;
}

/* Null where only reading all of a long file would tell. */
static json_t *hash(const struct kx_failure *failure, int fd, bool is_small)
{
	uint8_t sha[KX_SHA256_LEN];
	char hex[2 * KX_SHA256_LEN + 1];
	const uint8_t *known = failure->sha256;
	if (known == NULL && is_small && kx_sha256_fd(fd, sha, NULL) == KX_OK)
		known = sha;
	if (known == NULL)
		return json_null();
	kx_hex_encode(known, KX_SHA256_LEN, hex);
	return json_string(hex);
}

static json_t *describe(const struct kx_failure *failure, int fd, const char *source, const struct stat *input,
			bool copied)
{
	return json_pack("{s:i, s:o, s:s, s:o, s:b, s:o, s:I, s:o, s:o, s:{s:o, s:I, s:I, s:o, s:b}}", "capsule", FORMAT, "id",
			 text(failure->name), "reason", kx_reason_name(failure->reason), "message",
			 text(failure->message), "retriable", failure->retriable, "stderr", text(failure->words), "at_ms",
			 (json_int_t)kx_clock_wall_ms(), "job", job(failure->request), "versions", versions(), "input",
			 "source", text(source), "bytes", (json_int_t)input->st_size, "modified_ns",
			 (json_int_t)input->st_mtim.tv_sec * 1000000000 + input->st_mtim.tv_nsec, "sha256",
			 hash(failure, fd, copied), "in_capsule", copied);
}

static kx_status write_capsule(const char *dir, const struct kx_failure *failure, int fd, const char *source,
			       struct kx_error *error)
{
	struct stat input;
	if (fstat(fd, &input) != 0)
		return kx_error_from_errno(error, errno, "looking at %s", source);
	bool copied = S_ISREG(input.st_mode) && input.st_size <= KX_CAPSULE_COPY_MAX;
	kx_status status = kx_fs_remove_tree(dir, error); /* of an earlier failure */
	if (status == KX_OK)
		status = kx_fs_mkdirs(dir, error);
	if (status == KX_OK)
		status = write_request(dir, failure, source, error);
	if (status == KX_OK && copied)
		status = copy_input(dir, fd, (size_t)input.st_size, error);
	if (status != KX_OK)
		return status;
	json_t *json = describe(failure, fd, source, &input, copied);
	status = write_json(dir, json, error);
	json_decref(json);
	return status;
}

/* Where the probers' descriptor came from. */
static char *source_of(int fd)
{
	char link[32], path[PATH_MAX];
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t len = readlink(link, path, sizeof(path));
	return len > 0 ? kx_strndup(path, (size_t)len) : kx_strdup("");
}

static kx_status take(struct kx_capsules *capsules, const struct kx_failure *failure, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_close) int opened = -1;
	int fd = failure->fd;
	if (fd < 0) {
		opened = open(failure->source, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
		fd = opened;
	}
	if (fd < 0)
		return kx_error_from_errno(error, errno, "%s", failure->source);
	KX_CLEANUP(kx_cleanup_free) char *source =
		failure->source != NULL ? kx_strdup(failure->source) : source_of(fd);
	KX_CLEANUP(kx_cleanup_free) char *dir = kx_capsule_path(capsules->data_dir, failure->name);
	if (source == NULL || dir == NULL)
		return kx_error_nomem(error);
	return write_capsule(dir, failure, fd, source, error);
}

/* What came over a network is nowhere to be run again from. */
static bool is_remote(const struct kx_failure *failure)
{
	return failure->fd >= 0 ? kx_fs_is_socket(failure->fd) : kx_fetch_is_url(failure->source);
}

/* A file that could not be read is not wrong, and would be read well the next time. */
static bool can_come_again(const struct kx_capsules *capsules, const struct kx_failure *failure)
{
	if (failure->reason == KX_REASON_READ_FAILED || failure->reason == KX_REASON_MODEL_FAILED ||
	    failure->reason == KX_REASON_CHANGED || is_remote(failure))
		return false;
	return failure->fd >= 0 || !failure->retriable || failure->attempt >= capsules->attempts;
}

void kx_capsules_failed(void *ctx, const struct kx_failure *failure)
{
	struct kx_capsules *capsules = ctx;
	struct kx_error error = {0};
	if (!can_come_again(capsules, failure))
		return;
	pthread_mutex_lock(&capsules->lock);
	if (capsules->written < KX_CAPSULES_MAX) { /* of a run; a catalogue may be bad all over */
		capsules->written++;
		if (take(capsules, failure, &error) != KX_OK)
			kx_log(KX_LOG_WARN, "%s: no capsule was left: %s", failure->name, error.message);
	}
	pthread_mutex_unlock(&capsules->lock);
}

kx_status kx_capsules_new(const char *data_dir, uint32_t attempts, struct kx_capsules **ret, struct kx_error *error)
{
	struct kx_capsules *capsules = calloc(1, sizeof(*capsules));
	if (capsules == NULL)
		return kx_error_nomem(error);
	capsules->attempts = attempts;
	capsules->data_dir = kx_strdup(data_dir);
	capsules->dir = kx_fs_join(data_dir, "capsules");
	if (capsules->data_dir == NULL || capsules->dir == NULL || pthread_mutex_init(&capsules->lock, NULL) != 0) {
		free(capsules->data_dir);
		free(capsules->dir);
		free(capsules);
		return kx_error_nomem(error);
	}
	*ret = capsules;
	return KX_OK;
}

/* ---- sweeping ---- */

struct entry {
	char name[NAME_LEN + 1];
	bool wanted;
	int64_t at; /* seconds */
	uint64_t bytes;
};

struct entries {
	const char *dir;
	struct entry *all;
	size_t count;
};

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static int oldest_last(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	return x->at < y->at ? 1 : x->at > y->at ? -1 : by_name(a, b);
}

static void list_entries(struct entries *entries)
{
	KX_CLEANUP(kx_cleanup_closedir) DIR *dir = opendir(entries->dir);
	for (struct dirent *each; dir != NULL && (each = readdir(dir)) != NULL;) {
		if (strlen(each->d_name) != NAME_LEN)
			continue;
		struct entry *grown = realloc(entries->all, (entries->count + 1) * sizeof(*grown));
		if (grown == NULL)
			return;
		entries->all = grown;
		struct entry *entry = &grown[entries->count++];
		*entry = (struct entry){0};
		memcpy(entry->name, each->d_name, NAME_LEN);
	}
	if (entries->count > 1)
		qsort(entries->all, entries->count, sizeof(*entries->all), by_name);
}

static kx_status want(void *ctx, const struct kx_dead_letter *letter, struct kx_error *error)
{
	struct entries *entries = ctx;
	struct entry key = {0};
	if (name_of(letter->video_id, key.name) != KX_OK)
		return kx_error_nomem(error);
	struct entry *found = bsearch(&key, entries->all, entries->count, sizeof(key), by_name);
	if (found != NULL)
		found->wanted = true;
	return KX_OK;
}

static void measure(const struct entries *entries, struct entry *entry)
{
	KX_CLEANUP(kx_cleanup_free) char *path = kx_fs_join(entries->dir, entry->name);
	struct stat st;
	if (path == NULL || stat(path, &st) != 0)
		return;
	entry->at = st.st_mtime;
	entry->bytes = kx_fs_tree_bytes(path);
}

static void drop(const struct entries *entries, const struct entry *entry)
{
	KX_CLEANUP(kx_cleanup_free) char *path = kx_fs_join(entries->dir, entry->name);
	if (path != NULL)
		(void)!kx_fs_remove_tree(path, NULL);
}

static void keep_newest(struct entries *entries)
{
	uint64_t bytes = 0;
	size_t kept = 0;
	for (size_t i = 0; i < entries->count; i++)
		measure(entries, &entries->all[i]);
	qsort(entries->all, entries->count, sizeof(*entries->all), oldest_last);
	for (size_t i = 0; i < entries->count; i++) {
		const struct entry *entry = &entries->all[i];
		bool keep = entry->wanted && kept < KX_CAPSULES_MAX && bytes + entry->bytes <= KX_CAPSULES_BYTES_MAX;
		if (!keep) {
			drop(entries, entry);
			continue;
		}
		kept++;
		bytes += entry->bytes;
	}
}

static void sweep(const struct kx_capsules *capsules)
{
	struct entries entries = {.dir = capsules->dir};
	struct kx_ledger *ledger = NULL;
	list_entries(&entries);
	if (entries.count > 0 && kx_ledger_open(capsules->data_dir, true, &ledger, NULL) == KX_OK &&
	    kx_ledger_each_dead(ledger, want, &entries, NULL) == KX_OK)
		keep_newest(&entries);
	kx_ledger_close(ledger);
	free(entries.all);
}

void kx_capsules_end(struct kx_capsules *capsules)
{
	if (capsules == NULL)
		return;
	sweep(capsules);
	pthread_mutex_destroy(&capsules->lock);
	free(capsules->data_dir);
	free(capsules->dir);
	free(capsules);
}

/* ---- reading one ---- */

static enum kx_reason reason_of(const char *name)
{
	for (int i = KX_REASON_NONE; i < KX_REASON_COUNT; i++)
		if (kx_str_eq(kx_reason_name((enum kx_reason)i), name))
			return (enum kx_reason)i;
	return KX_REASON_COUNT;
}

static kx_status bad(const char *dir, struct kx_error *error)
{
	return kx_error_set(error, KX_ECORRUPT, KX_ERROR_POISON,
			    "%s is no capsule, or one of a version of kinodex that this one does not know", dir);
}

static kx_status read_json(const char *dir, json_t **ret, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *path = kx_fs_join(dir, "capsule.json");
	struct kx_buf bytes = {0};
	if (path == NULL)
		return kx_error_nomem(error);
	kx_status status = kx_fs_read(path, JSON_MAX, &bytes, error);
	*ret = status == KX_OK ? json_loadb((const char *)bytes.data, bytes.len, 0, NULL) : NULL;
	kx_buf_done(&bytes);
	if (status == KX_OK && *ret == NULL)
		return bad(dir, error);
	return status;
}

static kx_status read_request(struct kx_capsule *capsule, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *path = kx_fs_join(capsule->dir, "request.pb");
	struct kx_buf bytes = {0};
	if (path == NULL)
		return kx_error_nomem(error);
	kx_status status = kx_fs_read(path, REQUEST_MAX, &bytes, error);
	if (status == KX_OK && kx_decode_request_unpack(bytes.data, bytes.len, &capsule->request, NULL) != KX_OK)
		status = bad(capsule->dir, error);
	kx_buf_done(&bytes);
	return status;
}

/* The file that it refers to; it must be the one that failed. */
static kx_status open_reference(struct kx_capsule *capsule, json_int_t bytes, json_int_t modified_ns,
				struct kx_error *error)
{
	struct stat st;
	capsule->fd = open(capsule->request->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (capsule->fd < 0 || fstat(capsule->fd, &st) != 0)
		return kx_error_from_errno(error, errno, "%s, to which the capsule refers", capsule->request->name);
	if (st.st_size != bytes || st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec != modified_ns)
		return kx_error_set(error, KX_ENOTFOUND, KX_ERROR_POISON,
				    "%s is not the file any more that failed: index it again", capsule->request->name);
	capsule->bytes = (uint64_t)bytes;
	return KX_OK;
}

static kx_status open_own(struct kx_capsule *capsule, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *path = kx_fs_join(capsule->dir, "input");
	struct stat st;
	if (path == NULL)
		return kx_error_nomem(error);
	capsule->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (capsule->fd < 0 || fstat(capsule->fd, &st) != 0)
		return kx_error_from_errno(error, errno, "opening %s", path);
	capsule->own_input = true;
	capsule->bytes = (uint64_t)st.st_size;
	return KX_OK;
}

static kx_status fill(struct kx_capsule *capsule, struct kx_error *error)
{
	json_t *json = NULL;
	int format, in_capsule;
	json_int_t bytes, modified_ns;
	const char *reason;
	kx_status status = read_json(capsule->dir, &json, error);
	if (status == KX_OK)
		status = read_request(capsule, error);
	if (status == KX_OK && (json_unpack(json, "{s:i, s:s, s:{s:I, s:I, s:b}}", "capsule", &format, "reason", &reason,
					    "input", "bytes", &bytes, "modified_ns", &modified_ns, "in_capsule",
					    &in_capsule) != 0 ||
				format != FORMAT || (capsule->reason = reason_of(reason)) == KX_REASON_COUNT))
		status = bad(capsule->dir, error);
	if (status == KX_OK)
		status = in_capsule ? open_own(capsule, error) : open_reference(capsule, bytes, modified_ns, error);
	json_decref(json);
	return status;
}

kx_status kx_capsule_open(const char *dir, struct kx_capsule **ret, struct kx_error *error)
{
	KX_CLEANUP(kx_capsule_cleanup) struct kx_capsule *capsule = calloc(1, sizeof(*capsule));
	if (capsule == NULL)
		return kx_error_nomem(error);
	capsule->fd = -1;
	if ((capsule->dir = kx_strdup(dir)) == NULL)
		return kx_error_nomem(error);
	kx_status status = fill(capsule, error);
	if (status == KX_OK)
		*ret = KX_STEAL(capsule);
	return status;
}

void kx_capsule_free(struct kx_capsule *capsule)
{
	if (capsule == NULL)
		return;
	if (capsule->fd >= 0)
		close(capsule->fd);
	kx_decode_request_free(capsule->request);
	free(capsule->dir);
	free(capsule);
}

void kx_capsule_cleanup(struct kx_capsule **capsule)
{
	kx_capsule_free(*capsule);
}

kx_status kx_capsule_replace(struct kx_capsule *capsule, const void *bytes, size_t len, struct kx_error *error)
{
	json_t *json = NULL;
	kx_status status = read_json(capsule->dir, &json, error);
	if (status == KX_OK)
		status = write_file(capsule->dir, "input", bytes, len, error);
	if (status == KX_OK) {
		json_t *input = json_object_get(json, "input");
		json_object_set_new(input, "in_capsule", json_true());
		json_object_set_new(input, "reduced_bytes", json_integer((json_int_t)len));
		status = write_json(capsule->dir, json, error);
	}
	json_decref(json);
	return status;
}
