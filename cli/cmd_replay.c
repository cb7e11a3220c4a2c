#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/capsule.h"
#include "cli/cli.h"
#include "cli/data.h"
#include "cli/json.h"
#include "cli/prober.h"
#include "cli/reduce.h"
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/str.h"

#define REDUCE_TRIES 500u
#define REDUCE_MS 60000u

struct replay {
	const struct kx_config *config;
	struct kx_capsule *capsule;
	struct kx_cli_prober *prober;
	enum kx_reason reason; /* of the last run */
	char *message;
	char *words;
	uint64_t until_us; /* of the reduction */
	unsigned tries;
	size_t reduced_bytes;
	bool reduced;
};

/* A folder, or the id of an input whose dead letter has one. */
static kx_status find_dir(const struct kx_config *config, char **ret, struct kx_error *error)
{
	const char *name = kx_config_arg(config, 0);
	KX_CLEANUP(kx_cleanup_free) char *json = kx_fs_join(name, "capsule.json");
	*ret = json != NULL && kx_fs_exists(json) ? kx_strdup(name) : kx_capsule_path(kx_config_text(config, "data"), name);
	if (json == NULL || *ret == NULL)
		return kx_error_nomem(error);
	if (kx_fs_exists(*ret))
		return KX_OK;
	return kx_error_set(error, KX_ENOTFOUND, KX_ERROR_POISON,
			    "%s is no capsule, and no input with this id left one in %s: kinodex dead show ID names them",
			    name, kx_config_text(config, "data"));
}

static kx_status run(struct replay *replay, int fd, const struct kx_decode_request *request, struct kx_error *error)
{
	free(KX_STEAL(replay->message));
	free(KX_STEAL(replay->words));
	replay->reason = KX_REASON_NONE;
	return kx_prober_run(replay->prober->prober, fd, request->name, request, &replay->reason, &replay->message,
			     &replay->words, error);
}

/* ---- reducing ---- */

/* A file in memory, as a decoder may well be given one. */
static int memory_file(const uint8_t *bytes, size_t len)
{
	int fd = memfd_create("kx-candidate", MFD_CLOEXEC);
	for (size_t at = 0; fd >= 0 && at < len;) {
		ssize_t wrote = write(fd, bytes + at, len - at);
		if (wrote <= 0) {
			close(fd);
			return -1;
		}
		at += (size_t)wrote;
	}
	return fd;
}

static enum kx_reduce_answer fails_the_same(void *ctx, const uint8_t *bytes, size_t len)
{
	struct replay *replay = ctx;
	uint64_t now_us = kx_clock_mono_us();
	if (now_us >= replay->until_us || kx_stop_asked(&kx_interrupted))
		return KX_REDUCE_STOP;
	KX_CLEANUP(kx_cleanup_close) int fd = memory_file(bytes, len);
	struct kx_decode_request request = *replay->capsule->request;
	uint64_t left_ms = (replay->until_us - now_us) / 1000 + 1;
	if (request.wall_limit_ms == 0 || request.wall_limit_ms > left_ms)
		request.wall_limit_ms = left_ms;
	replay->tries++;
	if (fd < 0 || run(replay, fd, &request, NULL) != KX_OK)
		return KX_REDUCE_STOP;
	return replay->reason == replay->capsule->reason ? KX_REDUCE_YES : KX_REDUCE_NO;
}

/* Of a long file its beginning, if that fails the same way. KX_ETOOBIG: it does not. */
static kx_status read_input(struct replay *replay, uint8_t **ret, size_t *ret_len, struct kx_error *error)
{
	const struct kx_capsule *capsule = replay->capsule;
	size_t len = capsule->bytes < KX_CAPSULE_INPUT_MAX ? (size_t)capsule->bytes : KX_CAPSULE_INPUT_MAX;
	uint8_t *bytes = malloc(len + 1);
	if (bytes == NULL)
		return kx_error_nomem(error);
	for (size_t at = 0; at < len;) {
		ssize_t got = pread(capsule->fd, bytes + at, len - at, (off_t)at);
		if (got <= 0)
			len = at;
		else
			at += (size_t)got;
	}
	if (len < capsule->bytes && fails_the_same(replay, bytes, len) != KX_REDUCE_YES) {
		free(bytes);
		return kx_error_set(error, KX_ETOOBIG, KX_ERROR_POISON,
				    "it takes more than the first %u MiB of the input; the capsule goes on referring to it",
				    KX_CAPSULE_INPUT_MAX >> 20);
	}
	*ret = bytes;
	*ret_len = len;
	return KX_OK;
}

static kx_status reduce(struct replay *replay, struct kx_error *error)
{
	uint8_t *bytes = NULL;
	size_t len = 0;
	enum kx_reason reason = replay->capsule->reason;
	if (reason == KX_REASON_CPU_LIMIT || reason == KX_REASON_WALL_LIMIT)
		return kx_error_set(error, KX_EUNSUPPORTED, KX_ERROR_POISON,
				    "an input that runs into a limit on time can't be reduced: each try would take that long");
	replay->until_us = kx_clock_mono_us() + REDUCE_MS * 1000u;
	kx_status status = read_input(replay, &bytes, &len, error);
	if (status != KX_OK)
		return status;
	if (kx_reduce(bytes, &len, REDUCE_TRIES, fails_the_same, replay) != KX_OK)
		status = kx_error_nomem(error);
	if (status == KX_OK)
		status = kx_capsule_replace(replay->capsule, bytes, len, error);
	replay->reduced = status == KX_OK;
	replay->reduced_bytes = len;
	free(bytes);
	return status;
}

/* ---- the command ---- */

static kx_status print(const struct replay *replay, bool same, const char *message, struct kx_error *error)
{
	const struct kx_capsule *capsule = replay->capsule;
	if (kx_config_flag(replay->config, "json")) {
		json_t *json = json_pack("{s:s, s:b, s:s, s:s, s:s, s:I}", "capsule", capsule->dir, "same", same, "expected",
					 kx_reason_name(capsule->reason), "reason", kx_reason_name(replay->reason),
					 "message", kx_utf8_valid(message, strlen(message)) ? message : "", "bytes",
					 (json_int_t)capsule->bytes);
		if (replay->reduced) {
			json_object_set_new(json, "reduced_bytes", json_integer((json_int_t)replay->reduced_bytes));
			json_object_set_new(json, "tries", json_integer(replay->tries));
		}
		return kx_json_print(json, error);
	}
	printf("%s: %s%s%s\n", same ? "the same" : "not the same", kx_reason_name(replay->reason),
	       *message ? ": " : "", message);
	if (!same)
		printf("the capsule is of %s\n", kx_reason_name(capsule->reason));
	if (replay->reduced)
		printf("reduced from %" PRIu64 " to %zu bytes in %u tries\n", capsule->bytes, replay->reduced_bytes,
		       replay->tries);
	return KX_OK;
}

static kx_status replay_all(struct replay *replay, bool *ret_same, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *dir = NULL;
	KX_CLEANUP(kx_cleanup_free) char *message = NULL;
	kx_status status = find_dir(replay->config, &dir, error);
	if (status == KX_OK)
		status = kx_capsule_open(dir, &replay->capsule, error);
	if (status == KX_OK)
		status = kx_cli_prober_open(NULL, &replay->prober, error);
	if (status == KX_OK)
		status = run(replay, replay->capsule->fd, replay->capsule->request, error);
	if (status != KX_OK)
		return status;
	enum kx_reason reason = replay->reason;
	*ret_same = reason == replay->capsule->reason;
	message = KX_STEAL(replay->message);
	if (*ret_same && kx_config_flag(replay->config, "reduce"))
		status = reduce(replay, error);
	replay->reason = reason;
	return status == KX_OK ? print(replay, *ret_same, message, error) : status;
}

static void done(struct replay *replay)
{
	kx_cli_prober_free(replay->prober);
	kx_capsule_free(replay->capsule);
	free(replay->message);
	free(replay->words);
}

int kx_cmd_replay(const struct kx_config *config)
{
	if (kx_config_argc(config) != 1)
		return kx_usage("replay which capsule? kinodex replay DIR|ID");
	struct replay replay = {.config = config};
	struct kx_error error = {0};
	bool same = false;
	kx_status status = replay_all(&replay, &same, &error);
	done(&replay);
	if (status != KX_OK)
		return kx_fail(&error);
	return same ? KX_EXIT_DONE : KX_EXIT_FAILED;
}
