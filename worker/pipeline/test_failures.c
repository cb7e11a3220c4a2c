/* What dies, hangs or is stopped costs its own job and nothing else; and nothing is left behind.
 *
 * To have a child at hand in the middle of its job, the sink is held at the first moment: the ring fills up and the
 * child waits for a slot. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/macros.h"
#include "worker/pipeline/internal.h"
#include "worker/pipeline/testkit.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEMORY_IS_OURS 0 /* quarantines and shadows grow by themselves */
#else
#define MEMORY_IS_OURS 1
#endif

static char *folder;
static char *clip;
static struct kx_bundle *visual;
static struct kx_pipeline *pipeline; /* one for all tests but those that free it */

static struct kx_pipeline *pipeline_beside(size_t decoders, struct kx_prober *prober)
{
	const struct kx_pipeline_options options = {
		.program = KX_TEST_PROGRAM,
		.run_dir = folder,
		.visual = visual,
		.decoders = decoders,
		.streams = 1,
		.queue_max = 8,
		.beside = prober,
	};
	struct kx_pipeline *made = NULL;
	struct kx_error error = {0};

	if (kx_pipeline_new(&options, &made, &error) != KX_OK)
		fail_msg("%s", error.message);
	return made;
}

static struct kx_pipeline *pipeline_new(size_t decoders)
{
	return pipeline_beside(decoders, NULL);
}

/* Enough frames that the ring fills many times over. */
static struct kx_job long_job(void)
{
	struct kx_job job = kx_test_job(clip);

	job.tracks = KX_TRACK_VISUAL;
	job.fps = 25;
	job.moment_us = 500000;
	return job;
}

static pid_t host_pid(void)
{
	return kx_test_child_of(getpid());
}

/* A job that is held at its first moment, with its child alive; 0 when its end came first. */
static pid_t try_held(const struct kx_job *job, struct kx_test_result *result)
{
	kx_test_result_init(result);
	result->hold = true;
	kx_test_submit(pipeline, job, result);
	return kx_test_wait_holding(result) ? kx_test_child_of(host_pid()) : 0;
}

static pid_t begin_held(const struct kx_job *job, struct kx_test_result *result)
{
	pid_t child = try_held(job, result);

	if (child == 0)
		fail_msg("%s: %s", kx_reason_name(result->reason), result->message);
	return child;
}

static void assert_pipeline_works(void)
{
	struct kx_job job = kx_test_job(clip);
	struct kx_test_result result;

	job.tracks = KX_TRACK_VISUAL;
	kx_test_result_init(&result);
	kx_test_submit(pipeline, &job, &result);
	kx_test_wait(&result);
	if (result.reason != KX_REASON_NONE)
		fail_msg("%s: %s", kx_reason_name(result.reason), result.message);
	kx_test_result_done(&result);
}

static void held_child_gets(int signal, pid_t child, struct kx_test_result *result, enum kx_reason reason, bool retriable)
{
	assert_int_equal(kill(child, signal), 0);
	kx_test_let_go(result);
	kx_test_wait(result);
	if (result->reason != reason)
		fail_msg("%s: %s", kx_reason_name(result->reason), result->message);
	assert_int_equal(result->retriable, retriable);
	assert_int_equal(result->done, 1);
	kx_test_result_done(result);
	assert_pipeline_works();
}

static void child_gets(int signal, const struct kx_job *job, enum kx_reason reason, bool retriable)
{
	struct kx_test_result result;
	pid_t child = begin_held(job, &result);

	held_child_gets(signal, child, &result, reason, retriable);
}

static void killed_child_costs_its_own_job(void **state)
{
	struct kx_job job = long_job();

	(void)state;
	child_gets(SIGKILL, &job, KX_REASON_CRASHED, true);
	child_gets(SIGABRT, &job, KX_REASON_CRASHED, true);
}

static void child_out_of_cpu_time_is_not_tried_again(void **state)
{
	struct kx_job job = long_job();

	(void)state;
	child_gets(SIGXCPU, &job, KX_REASON_CPU_LIMIT, false);
}

static void child_that_hangs_ends_at_the_wall_limit(void **state)
{
	struct kx_job job = long_job();
	struct kx_test_result result;
	pid_t child;

	(void)state;
	/* Its first moment takes some of the time, in a sanitizer's build or on a crowded machine all of it. */
	for (job.wall_limit_ms = 2000; (child = try_held(&job, &result)) == 0; job.wall_limit_ms *= 2) {
		assert_int_equal(result.reason, KX_REASON_WALL_LIMIT);
		assert_true(job.wall_limit_ms < KX_TEST_WAIT_MS / 2);
		kx_test_result_done(&result);
	}
	held_child_gets(SIGSTOP, child, &result, KX_REASON_WALL_LIMIT, true);
}

/* Virtual time: a lane whose ring is full has a clock that stands. */
static void waiting_for_a_slow_sink_is_no_fault_of_the_file(void **state)
{
	struct kx_pipeline still = {.ring_slots = 1, .channel = {.host = {.fd = -1}}};
	struct kx_run run = {0};
	bool busy[1] = {true};
	struct kx_lane lane = {.run = &run, .alive = true, .busy = busy, .used = 1, .deadline_us = 1000};

	(void)state;
	assert_int_equal(kx_ring_new(1, 64, &lane.ring, NULL), KX_OK);
	lane.full_since_us = 900;
	assert_true(kx_lane_tick(&still, &lane, 5000) == UINT64_MAX);
	assert_false(lane.wall_killed);
	kx_lane_release(&lane, 0, 6000);
	assert_int_equal(kx_lane_tick(&still, &lane, 6000), 1000 + 5100);
	assert_false(lane.wall_killed);
	kx_lane_tick(&still, &lane, 6100);
	assert_true(lane.wall_killed);
	kx_ring_free(lane.ring);
}

static void times_out_of_reach_are_the_fault_of_the_file(void **state)
{
	struct kx_job job = {.tracks = KX_TRACK_VISUAL};
	struct kx_run run = {.job = &job, .opened = true};
	struct kx_lane lane = {.run = &run, .alive = true, .busy = (bool[1]){false}, .ticket = 7};
	struct kx_pipeline still = {.ring_slots = 1, .lanes = &lane, .lane_count = 1, .wake_fd = -1};
	const struct kx_track_shape shape = {.modality = KX_VISUAL, .moment_us = 1, .fps = 1};
	const struct kx_wire_peer peer = {.len = 1};
	const struct kx_decode_event event = {
		.ticket = 7, .kind = KX_DECODE_FRAME, .sample = {.index = KX_MOMENTS_MAX / 1000000 + 1}};

	(void)state;
	kx_assembler_init(&run.track[0], &shape);
	kx_lane_event(&still, &peer, &event);
	assert_true(run.failed);
	assert_int_equal(run.reason, KX_REASON_TOO_LARGE);
	assert_false(run.retriable);
	kx_assembler_done(&run.track[0]);
	free(run.message);
}

/* It becomes our child only when its own parent has ended. */
static pid_t waitpid_adopted(pid_t pid, int *wait_status)
{
	uint64_t end_us = kx_clock_mono_us() + KX_TEST_WAIT_MS * 1000u;
	pid_t got;

	while ((got = waitpid(pid, wait_status, 0)) < 0 && errno == ECHILD) {
		assert_true(kx_clock_mono_us() < end_us);
		sched_yield();
	}
	return got;
}

/* Its child waits for a slot that nobody will give back, and would do so for ever: giving up root must not have made it
 * forget whom to die with. */
static void dead_host_is_replaced(void **state)
{
	struct kx_job job = long_job();
	struct kx_test_result result;
	int wait_status = 0;
	pid_t child;

	(void)state;
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0); /* its parent is then us */
	child = begin_held(&job, &result);
	assert_int_equal(kill(host_pid(), SIGKILL), 0);
	assert_int_equal(waitpid_adopted(child, &wait_status), child);
	assert_true(WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL);
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
	kx_test_let_go(&result);
	kx_test_wait(&result);
	assert_int_equal(result.reason, KX_REASON_CRASHED);
	assert_true(result.retriable);
	kx_test_result_done(&result);
	assert_pipeline_works();
}

static void assert_probes(struct kx_prober *prober)
{
	KX_CLEANUP(kx_cleanup_close) int fd = open(clip, O_RDONLY | O_CLOEXEC);
	struct kx_probe_info info = {0};
	struct kx_error error = {0};
	enum kx_reason reason;
	kx_status status = kx_prober_probe(prober, fd, clip, &info, &reason, &error);

	if (status != KX_OK) /* the host died: once, and then there is another */
		status = kx_prober_probe(prober, fd, clip, &info, &reason, &error);
	if (status != KX_OK)
		fail_msg("%s", error.message);
	kx_probe_info_done(&info);
}

static void pipeline_beside_a_prober_outlives_their_host(void **state)
{
	struct kx_pipeline *usual = pipeline;
	struct kx_prober *prober = NULL;
	pid_t shared;

	(void)state;
	kx_pipeline_free(usual);
	assert_int_equal(kx_prober_new(KX_TEST_PROGRAM, folder, &prober, NULL), KX_OK);
	shared = host_pid();
	pipeline = pipeline_beside(1, prober);
	kx_test_wait_children(getpid(), 1);
	assert_probes(prober);
	assert_pipeline_works();
	assert_int_equal(kill(shared, SIGKILL), 0);
	assert_probes(prober);
	kx_test_wait_children(getpid(), 2); /* one each */
	assert_pipeline_works();
	kx_pipeline_free(pipeline);
	kx_prober_free(prober);
	pipeline = pipeline_new(1);
}

static void host_that_can_not_start_fails_the_jobs_that_wait(void **state)
{
	struct kx_job job = long_job();
	struct kx_test_result held, waiting;

	(void)state;
	kx_log_set_level(KX_LOG_ERROR);
	begin_held(&job, &held);
	kx_test_result_init(&waiting);
	kx_fault_arm("pipeline.host.start", 1);
	kx_test_submit(pipeline, &job, &waiting);
	assert_int_equal(kill(host_pid(), SIGKILL), 0);
	kx_test_let_go(&held);
	kx_test_wait(&held);
	kx_test_wait(&waiting);
	assert_int_equal(waiting.reason, KX_REASON_INTERNAL);
	assert_true(waiting.retriable);
	kx_fault_clear();
	kx_test_result_done(&held);
	kx_test_result_done(&waiting);
	assert_pipeline_works();
	kx_log_set_level(KX_LOG_WARN);
}

static void full_queue_says_so(void **state)
{
	struct kx_job job = long_job();
	struct kx_test_result held, waiting;
	struct kx_pipeline_sink sink = kx_test_sink(&waiting);
	kx_status status;
	unsigned accepted = 0;

	(void)state;
	begin_held(&job, &held);
	kx_test_result_init(&waiting);
	while ((status = kx_pipeline_submit(pipeline, &job, &sink, NULL)) == KX_OK)
		accepted++;
	assert_int_equal(status, KX_EAGAIN);
	assert_int_equal(accepted, 8);
	kx_test_let_go(&held);
	kx_pipeline_cancel(pipeline, &waiting);
	assert_int_equal(waiting.done, accepted);
	assert_int_equal(waiting.reason, KX_REASON_INTERNAL);
	kx_test_wait(&held);
	assert_int_equal(held.reason, KX_REASON_NONE); /* it had another owner */
	kx_test_result_done(&held);
	kx_test_result_done(&waiting);
}

static void *let_go(void *result)
{
	kx_test_let_go(result);
	return NULL;
}

static void stop_ends_every_job(void **state)
{
	struct kx_job job = long_job();
	struct kx_test_result held, others;
	struct kx_pipeline_sink sink = kx_test_sink(&others);
	struct kx_error error = {0};
	pthread_t thread;
	pid_t child;

	(void)state;
	child = begin_held(&job, &held);
	kx_test_result_init(&others);
	for (int i = 0; i < 3; i++)
		assert_int_equal(kx_pipeline_submit(pipeline, &job, &sink, &error), KX_OK);
	assert_int_equal(pthread_create(&thread, NULL, let_go, &held), 0);
	kx_pipeline_free(pipeline);
	pthread_join(thread, NULL);
	assert_int_equal(held.done, 1);
	assert_int_equal(held.reason, KX_REASON_INTERNAL);
	assert_true(held.retriable);
	assert_int_equal(others.done, 3);
	assert_int_equal(others.reason, KX_REASON_INTERNAL);
	assert_int_equal(kill(child, 0), -1); /* the host reaped it, or init will: it does not run */
	kx_test_result_done(&held);
	kx_test_result_done(&others);
	pipeline = pipeline_new(1);
}

/* Body of `test_failures orphans FOLDER CLIP`: says who its host and child are, and waits to be killed. */
static int be_killed(char **argv)
{
	struct kx_test_result result;
	pid_t pids[2];
	struct kx_job job;

	folder = argv[2];
	clip = argv[3];
	visual = kx_test_bundle("lite0");
	pipeline = pipeline_new(1);
	job = long_job();
	pids[1] = begin_held(&job, &result);
	pids[0] = host_pid();
	if (write(STDOUT_FILENO, pids, sizeof(pids)) != (ssize_t)sizeof(pids))
		return 1;
	for (;;)
		pause();
}

static pid_t spawn_to_be_killed(int *ret_fd)
{
	int pair[2];
	pid_t pid;

	assert_int_equal(pipe(pair), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		dup2(pair[1], STDOUT_FILENO);
		execl(KX_TEST_PROGRAM, KX_TEST_PROGRAM, "orphans", folder, clip, (char *)NULL);
		_exit(127);
	}
	close(pair[1]);
	*ret_fd = pair[0];
	return pid;
}

/* As the reaper of orphans we can wait for them: they would not end if they hung on. */
static void nothing_outlives_a_killed_parent(void **state)
{
	pid_t pids[2], parent;
	int fd;

	(void)state;
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	parent = spawn_to_be_killed(&fd);
	assert_int_equal(read(fd, pids, sizeof(pids)), sizeof(pids));
	close(fd);
	assert_int_equal(kill(parent, SIGKILL), 0);
	assert_int_equal(waitpid(parent, NULL, 0), parent);
	assert_int_equal(waitpid(pids[0], NULL, 0), pids[0]);
	/* Reaped by its host, or, had that gone first, by us. */
	assert_true(waitpid(pids[1], NULL, 0) == pids[1] || kill(pids[1], 0) == -1);
}

static size_t resident_kib(void)
{
	FILE *file = fopen("/proc/self/statm", "re");
	unsigned long total, resident;

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%lu %lu", &total, &resident), 2);
	fclose(file);
	return resident * (size_t)sysconf(_SC_PAGESIZE) / 1024;
}

static void run_small_jobs(const char *small, size_t count)
{
	for (size_t i = 0; i < count; i += 4) {
		struct kx_test_result results[4];
		struct kx_job job = kx_test_job(small);

		job.tracks = KX_TRACK_VISUAL;
		for (size_t k = 0; k < 4; k++) {
			kx_test_result_init(&results[k]);
			kx_test_submit(pipeline, &job, &results[k]);
		}
		for (size_t k = 0; k < 4; k++) {
			kx_test_wait(&results[k]);
			assert_int_equal(results[k].reason, KX_REASON_NONE);
			kx_test_result_done(&results[k]);
		}
	}
}

static void hundred_jobs_leave_nothing_behind(void **state)
{
	KX_CLEANUP(kx_cleanup_free) char *small = kx_test_clip_av(folder, 2);
	size_t fds, kib;

	(void)state;
	run_small_jobs(small, 20);
	fds = kx_test_open_fds();
	kib = resident_kib();
	run_small_jobs(small, 100);
	assert_int_equal(kx_test_open_fds(), fds);
	if (MEMORY_IS_OURS)
		assert_in_range(resident_kib(), 0, kib + 4096);
}

static int set_up(void **state)
{
	(void)state;
	folder = kx_test_folder();
	clip = kx_test_clip_av(folder, 40);
	visual = kx_test_bundle("lite0");
	pipeline = pipeline_new(1);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	kx_pipeline_free(pipeline);
	kx_bundle_free(visual);
	free(clip);
	kx_test_folder_remove(folder);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(killed_child_costs_its_own_job),
		cmocka_unit_test(child_out_of_cpu_time_is_not_tried_again),
		cmocka_unit_test(child_that_hangs_ends_at_the_wall_limit),
		cmocka_unit_test(waiting_for_a_slow_sink_is_no_fault_of_the_file),
		cmocka_unit_test(times_out_of_reach_are_the_fault_of_the_file),
		cmocka_unit_test(dead_host_is_replaced),
		cmocka_unit_test(pipeline_beside_a_prober_outlives_their_host),
		cmocka_unit_test(host_that_can_not_start_fails_the_jobs_that_wait),
		cmocka_unit_test(full_queue_says_so),
		cmocka_unit_test(stop_ends_every_job),
		cmocka_unit_test(nothing_outlives_a_killed_parent),
		cmocka_unit_test(hundred_jobs_leave_nothing_behind),
	};
	int status;

	if (kx_test_is_host(argc, argv, &status))
		return status;
	if (argc == 4 && strcmp(argv[1], "orphans") == 0)
		return be_killed(argv);
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
