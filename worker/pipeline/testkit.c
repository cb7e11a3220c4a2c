#include "worker/pipeline/testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <dirent.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/str.h"
#include "common/base/testkit.h"
#include "common/base/thread.h"

bool kx_test_is_host(int argc, char **argv, int *ret_status)
{
	if (argc < 2 || strcmp(argv[1], "decoder-host") != 0)
		return false;
	*ret_status = kx_decoder_host_main();
	return true;
}

char *kx_test_folder(void)
{
	char *folder = kx_strf("%s/kx-XXXXXX", kx_test_tmp());

	assert_non_null(folder);
	assert_non_null(mkdtemp(folder));
	return folder;
}

void kx_test_folder_remove(char *folder)
{
	struct kx_error error = {0};

	if (kx_fs_remove_tree(folder, &error) != KX_OK)
		fail_msg("%s", error.message);
	free(folder);
}

char *kx_test_clip(const char *folder, const char *name, const char *ffmpeg_arguments)
{
	char *path = kx_fs_join(folder, name);
	KX_CLEANUP(kx_cleanup_free) char *command = NULL;

	assert_non_null(path);
	if (kx_fs_exists(path))
		return path;
	command = kx_strf("ffmpeg -nostdin -v error -y %s '%s'", ffmpeg_arguments, path);
	assert_non_null(command);
	assert_int_equal(system(command), 0);
	return path;
}

char *kx_test_clip_av(const char *folder, int seconds)
{
	char name[32], arguments[512];

	snprintf(name, sizeof(name), "av-%d.mp4", seconds);
	snprintf(arguments, sizeof(arguments),
		 "-f lavfi -i testsrc2=size=320x240:rate=25 "
		 "-f lavfi -i \"aevalsrc=0.4*sin(2*PI*t*(300+40*t))|0.2*sin(900*PI*t):s=44100\" -t %d "
		 "-c:v libx264 -preset ultrafast -g 50 -pix_fmt yuv420p -c:a aac -b:a 96k",
		 seconds);
	return kx_test_clip(folder, name, arguments);
}

struct kx_bundle *kx_test_bundle(const char *name)
{
	KX_CLEANUP(kx_cleanup_free) char *folder = kx_strf("%s/bundles/%s", KX_SOURCE_DIR, name);
	struct kx_bundle *bundle = NULL;
	struct kx_error error = {0};

	assert_non_null(folder);
	if (kx_bundle_open(folder, &bundle, &error) != KX_OK)
		fail_msg("%s", error.message);
	return bundle;
}

struct kx_job kx_test_job(const char *path)
{
	struct stat st = {0};
	struct kx_job job = {
		.run_id = (char *)"run",
		.video_id = (char *)"video",
		.generation = 1,
		.parts = 1,
		.tracks = KX_TRACK_VISUAL | KX_TRACK_AUDIO,
		.source = (char *)path,
		.content_bytes = stat(path, &st) == 0 ? (uint64_t)st.st_size : 1,
		.fps = 1,
		.decode_mode = KX_DECODE_EXACT,
		.moment_us = 5000000,
		.attempt = 1,
		.wall_limit_ms = 600000,
		.cpu_limit_ms = 600000,
		.memory_limit_bytes = 512u << 20,
	};

	memset(job.content_sha256, 7, sizeof(job.content_sha256));
	memset(job.recipe_sha256, 8, sizeof(job.recipe_sha256));
	return job;
}

/* ---- the sink ---- */

void kx_test_result_init(struct kx_test_result *result)
{
	*result = (struct kx_test_result){.packed = {{.max = 256u << 20}, {.max = 256u << 20}}};
	assert_int_equal(pthread_mutex_init(&result->lock, NULL), 0);
	assert_int_equal(kx_cond_init(&result->changed), KX_OK);
}

void kx_test_result_done(struct kx_test_result *result)
{
	kx_buf_done(&result->packed[0]);
	kx_buf_done(&result->packed[1]);
	pthread_cond_destroy(&result->changed);
	pthread_mutex_destroy(&result->lock);
}

static void on_moment(void *ctx, const struct kx_job *job, const struct kx_moment *moment)
{
	struct kx_test_result *result = ctx;
	size_t track = moment->modality == KX_VISUAL ? 0 : 1;

	(void)job;
	pthread_mutex_lock(&result->lock);
	if (result->done > 0 || moment->index < result->next_index[track] ||
	    kx_moment_pack(moment, &result->packed[track]) != KX_OK)
		result->disorder = true;
	result->next_index[track] = moment->index + 1;
	result->moments[track]++;
	while (result->hold) {
		result->holding = true;
		pthread_cond_broadcast(&result->changed);
		pthread_cond_wait(&result->changed, &result->lock);
	}
	result->holding = false;
	pthread_mutex_unlock(&result->lock);
}

static void on_done(void *ctx, const struct kx_job *job, const struct kx_outcome *outcome)
{
	struct kx_test_result *result = ctx;

	(void)job;
	pthread_mutex_lock(&result->lock);
	result->done++;
	result->reason = outcome->reason;
	result->retriable = outcome->retriable;
	snprintf(result->message, sizeof(result->message), "%s", outcome->message);
	result->end = outcome->end;
	result->width = outcome->info.width;
	result->height = outcome->info.height;
	result->decode_cpu_us = outcome->decode_cpu_us;
	pthread_cond_broadcast(&result->changed);
	pthread_mutex_unlock(&result->lock);
}

struct kx_pipeline_sink kx_test_sink(struct kx_test_result *result)
{
	return (struct kx_pipeline_sink){.ctx = result, .owner = result, .moment = on_moment, .done = on_done};
}

void kx_test_submit(struct kx_pipeline *pipeline, const struct kx_job *job, struct kx_test_result *result)
{
	const struct kx_pipeline_sink sink = kx_test_sink(result);
	struct kx_error error = {0};

	if (kx_pipeline_submit(pipeline, job, &sink, &error) != KX_OK)
		fail_msg("%s", error.message);
}

static void wait_for(struct kx_test_result *result, bool holding)
{
	struct timespec deadline = kx_clock_deadline(KX_TEST_WAIT_MS);
	int failed = 0;

	pthread_mutex_lock(&result->lock);
	while (failed == 0 && !(holding && result->holding) && result->done == 0)
		failed = pthread_cond_timedwait(&result->changed, &result->lock, &deadline);
	pthread_mutex_unlock(&result->lock);
	assert_int_equal(failed, 0);
}

void kx_test_wait(struct kx_test_result *result)
{
	wait_for(result, false);
	assert_false(result->disorder);
}

bool kx_test_wait_holding(struct kx_test_result *result)
{
	wait_for(result, true);
	return result->done == 0;
}

void kx_test_let_go(struct kx_test_result *result)
{
	pthread_mutex_lock(&result->lock);
	result->hold = false;
	pthread_cond_broadcast(&result->changed);
	pthread_mutex_unlock(&result->lock);
}

void kx_test_assert_same(const struct kx_test_result *a, const struct kx_test_result *b)
{
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(a->packed[i].len, b->packed[i].len);
		if (a->packed[i].len > 0)
			assert_memory_equal(a->packed[i].data, b->packed[i].data, a->packed[i].len);
	}
}

/* ---- processes ---- */

static size_t children_of_thread(pid_t process, const char *thread, pid_t *ret_child)
{
	KX_CLEANUP(kx_cleanup_free) char *path = kx_strf("/proc/%d/task/%s/children", (int)process, thread);
	FILE *file;
	size_t count = 0;

	assert_non_null(path);
	file = fopen(path, "re");
	if (!file) /* a thread that has ended */
		return 0;
	while (fscanf(file, "%d", ret_child) == 1)
		count++;
	fclose(file);
	return count;
}

/* *ret_child: one of them, 0 for none. */
static size_t count_children(pid_t process, pid_t *ret_child)
{
	KX_CLEANUP(kx_cleanup_free) char *path = kx_strf("/proc/%d/task", (int)process);
	KX_CLEANUP(kx_cleanup_closedir) DIR *threads = NULL;
	struct dirent *thread;
	size_t count = 0;

	*ret_child = 0;
	assert_non_null(path);
	threads = opendir(path);
	assert_non_null(threads);
	while ((thread = readdir(threads)) != NULL) {
		if (thread->d_name[0] != '.')
			count += children_of_thread(process, thread->d_name, ret_child);
	}
	return count;
}

pid_t kx_test_child_of(pid_t process)
{
	uint64_t end_us = kx_clock_mono_us() + KX_TEST_WAIT_MS * 1000u;
	pid_t child;

	while (count_children(process, &child) == 0) {
		assert_true(kx_clock_mono_us() < end_us);
		sched_yield();
	}
	return child;
}

void kx_test_wait_children(pid_t process, size_t count)
{
	uint64_t end_us = kx_clock_mono_us() + KX_TEST_WAIT_MS * 1000u;
	pid_t child;

	while (count_children(process, &child) != count) {
		assert_true(kx_clock_mono_us() < end_us);
		sched_yield();
	}
}

size_t kx_test_open_fds(void)
{
	DIR *folder = opendir("/proc/self/fd");
	size_t count = 0;

	assert_non_null(folder);
	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

void kx_test_wait_readable(int fd)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

	assert_int_equal(poll(&poll_fd, 1, KX_TEST_WAIT_MS), 1);
}
