/* For the tests of pipeline and worker: clips, bundles, a sink that remembers, and the children of a host. */
#ifndef KX_WORKER_PIPELINE_TESTKIT_H
#define KX_WORKER_PIPELINE_TESTKIT_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

#include "common/base/buf.h"
#include "worker/pipeline/pipeline.h"

#define KX_TEST_PROGRAM "/proc/self/exe"
#define KX_TEST_BATCH_TOO_LARGE 257
#define KX_TEST_WAIT_MS 300000 /* after which a test fails; nothing waits that long */

/* Call first in main: a test program is its own decoder host. True: return *ret_status. */
bool kx_test_is_host(int argc, char **argv, int *ret_status);

/* A fresh folder under TMPDIR; remove with kx_test_folder_remove(), which frees the name. */
char *kx_test_folder(void);
void kx_test_folder_remove(char *folder);

/* Makes folder/name with ffmpeg, unless it is there. Returns its path; the caller frees. */
char *kx_test_clip(const char *folder, const char *name, const char *ffmpeg_arguments);
/* 320x240, 25 frames a second, H.264 with a key frame every 2 s, and a stereo sweep; as many seconds as asked. */
char *kx_test_clip_av(const char *folder, int seconds);

struct kx_bundle *kx_test_bundle(const char *name);

/* A job for all of a file, 1 frame a second, moments of 5 s. Strings are borrowed. */
struct kx_job kx_test_job(const char *path);

/* What became of a job. */
struct kx_test_result {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool hold;             /* the sink blocks while it is set */
	bool holding;          /* and does so now */
	size_t moments[2];
	uint32_t next_index[2];
	bool disorder;         /* a moment came out of order, or after done */
	struct kx_buf packed[2]; /* visual, audio: the moments one after the other */
	unsigned done;         /* times that it was called */
	enum kx_reason reason;
	bool retriable;
	char message[512];
	struct kx_part_end end;
	uint32_t width, height;
	uint64_t decode_cpu_us;
};

void kx_test_result_init(struct kx_test_result *result);
void kx_test_result_done(struct kx_test_result *result);
struct kx_pipeline_sink kx_test_sink(struct kx_test_result *result);
void kx_test_submit(struct kx_pipeline *pipeline, const struct kx_job *job, struct kx_test_result *result);
void kx_test_wait(struct kx_test_result *result);         /* for done; fails the test after a minute */
bool kx_test_wait_holding(struct kx_test_result *result); /* until the sink blocks; false when the job ended first */
void kx_test_let_go(struct kx_test_result *result);
void kx_test_assert_same(const struct kx_test_result *a, const struct kx_test_result *b);

/* A child of any thread of a process; waits until there is one. */
pid_t kx_test_child_of(pid_t process);
void kx_test_wait_children(pid_t process, size_t count); /* until it has as many */
size_t kx_test_open_fds(void);
void kx_test_wait_readable(int fd);

#endif
