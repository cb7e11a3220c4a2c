#include "gateway/run/looker.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "common/base/thread.h"

#define EVERY_US UINT64_C(5000000)
#define ANSWER_US UINT64_C(10000000) /* a shard that has to wait for a CPU is not to be taken for dead */
#define IDLE_US UINT64_C(120000000) /* after the last scrape; who scrapes at all does it more often */

struct kx_looker {
	const struct kx_backend *backend;
	struct kx_metrics *metrics;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint64_t scraped_us; /* 0: never */
	uint64_t looked_us;  /* when the last look began; 0: never */
	bool stopping;
	char *told; /* the thread's: of shards that failed, as last told; NULL: nothing */
};

/* Once for as long as it stays the same. */
static void tell(struct kx_looker *looker, const struct kx_answer *answer)
{
	KX_CLEANUP(kx_cleanup_free) char *text = kx_strdup("");

	for (uint32_t i = 0; i < answer->failure_count && text != NULL; i++) {
		char *longer = kx_strf("%s%s%s: %s", text, i > 0 ? "; " : "", answer->failures[i].shard,
				       answer->failures[i].message);

		free(text);
		text = longer;
	}
	if (text == NULL || strcmp(text, looker->told != NULL ? looker->told : "") == 0)
		return;
	if (text[0] != '\0')
		kx_log(KX_LOG_WARN, "answers are partial: %s", text);
	else
		kx_log(KX_LOG_INFO, "all shards answer again");
	free(looker->told);
	looker->told = KX_STEAL(text);
}

static void look(struct kx_looker *looker)
{
	const struct kx_query_request request = {.kind = KX_QUERY_STATS};
	struct kx_answer answer = {0};
	uint64_t until_us = kx_clock_mono_us() + ANSWER_US;

	/* Where nobody answers the values stay as old as they say; whoever asks anything is told. */
	if (looker->backend->ask(looker->backend->ctx, &request, until_us, &answer, NULL) == KX_OK &&
	    answer.reply->status == KX_OK) {
		kx_metrics_stats(looker->metrics, &answer.reply->stats);
		tell(looker, &answer);
	}
	kx_answer_done(&answer);
}

/* Under the lock: how long until it is time to look; 0: now. */
static uint64_t wait_us(const struct kx_looker *looker, uint64_t now)
{
	if (looker->looked_us == 0)
		return 0;
	if (looker->scraped_us == 0 || now - looker->scraped_us > IDLE_US)
		return IDLE_US;
	if (now - looker->looked_us >= EVERY_US)
		return 0;
	return EVERY_US - (now - looker->looked_us);
}

static void *run(void *arg)
{
	struct kx_looker *looker = arg;

	pthread_mutex_lock(&looker->lock);
	while (!looker->stopping) {
		uint64_t now = kx_clock_mono_us(), us = wait_us(looker, now);

		if (us > 0) {
			struct timespec until = kx_clock_deadline(us / 1000 + 1);

			(void)pthread_cond_timedwait(&looker->changed, &looker->lock, &until);
			continue;
		}
		looker->looked_us = now;
		pthread_mutex_unlock(&looker->lock);
		look(looker);
		pthread_mutex_lock(&looker->lock);
	}
	pthread_mutex_unlock(&looker->lock);
	return NULL;
}

kx_status kx_looker_start(const struct kx_backend *backend, struct kx_metrics *metrics, struct kx_looker **ret,
			  struct kx_error *error)
{
	struct kx_looker *looker = calloc(1, sizeof(*looker));

	if (looker == NULL)
		return kx_error_nomem(error);
	looker->backend = backend;
	looker->metrics = metrics;
	pthread_mutex_init(&looker->lock, NULL);
	kx_status status = kx_cond_init(&looker->changed);
	if (status == KX_OK)
		status = kx_thread_start(&looker->thread, "gateway-look", run, looker, error);
	else
		(void)kx_error_nomem(error);
	if (status == KX_OK) {
		*ret = looker;
		return KX_OK;
	}
	pthread_mutex_destroy(&looker->lock);
	free(looker);
	return status;
}

void kx_looker_stop(struct kx_looker *looker)
{
	if (looker == NULL)
		return;
	pthread_mutex_lock(&looker->lock);
	looker->stopping = true;
	pthread_cond_signal(&looker->changed);
	pthread_mutex_unlock(&looker->lock);
	pthread_join(looker->thread, NULL);
	pthread_cond_destroy(&looker->changed);
	pthread_mutex_destroy(&looker->lock);
	free(looker->told);
	free(looker);
}

void kx_looker_scraped(struct kx_looker *looker)
{
	uint64_t now = kx_clock_mono_us();

	pthread_mutex_lock(&looker->lock);
	looker->scraped_us = now;
	if (wait_us(looker, now) == 0)
		pthread_cond_signal(&looker->changed);
	pthread_mutex_unlock(&looker->lock);
}
