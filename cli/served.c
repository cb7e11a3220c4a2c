#include "cli/served.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/classes.h"
#include "cli/data.h"
#include "cli/engine.h"
#include "cli/png.h"
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "gateway/backend/fanout.h"
#include "gateway/backend/join.h"
#include "shard/run/shard.h"
#include "worker/pipeline/frames.h"

#define FPS_MAX 240.0
#define LANES 4u /* messages out to the shards at a time, before queries are joined */

/* Says that the store was written to: whoever takes the lock writes its number there. */
struct stamp {
	bool there;
	struct timespec modified;
};

struct kx_served {
	char *name;
	struct kx_data *data;     /* NULL with --shards */
	struct kx_wire *wire;
	struct kx_fanout *fanout; /* to the shards, or to the process that writes */
	struct kx_join *join;     /* before it: a shard answers one message after the other */
	pthread_rwlock_t lock;
	struct kx_shard *shard;   /* the lock's; NULL with --shards, and until there is a store */
	struct stamp stamp;       /* of when the shard was opened; the looker's */
	struct kx_cli_classes classes; /* names, for filters and answers */
	pthread_mutex_t prober_lock;
	char *program, *scratch;
	struct kx_prober *prober; /* from the first thumbnail on */
	bool cancelled;           /* the prober's lock's */
};

static struct stamp stamp_of(const struct kx_data *data)
{
	KX_CLEANUP(kx_cleanup_free) char *path = kx_fs_join(data->dir, "LOCK");
	struct stat st;
	if (path == NULL || stat(path, &st) != 0)
		return (struct stamp){.there = false};
	return (struct stamp){.there = true, .modified = st.st_mtim};
}

static bool is_same(const struct stamp *a, const struct stamp *b)
{
	return a->there == b->there && a->modified.tv_sec == b->modified.tv_sec && a->modified.tv_nsec == b->modified.tv_nsec;
}

static kx_status read_store(struct kx_served *served, struct kx_error *error)
{
	struct kx_shard_options options = {.data_dir = served->data->dir,
					   .read_only = true,
					   .classes = served->classes.names,
					   .class_count = served->classes.count};
	struct kx_shard *shard = NULL;
	struct stamp stamp = stamp_of(served->data);
	kx_status status = kx_shard_start(&options, &shard, error);
	if (status != KX_OK)
		return status;
	pthread_rwlock_wrlock(&served->lock);
	struct kx_shard *old = served->shard;
	served->shard = shard;
	pthread_rwlock_unlock(&served->lock);
	served->stamp = stamp;
	kx_shard_stop(old);
	return KX_OK;
}

void kx_served_look(struct kx_served *served)
{
	struct kx_error error = {0};
	if (served->data == NULL || kx_data_busy(served->data))
		return;
	struct stamp stamp = stamp_of(served->data);
	if (served->shard != NULL && is_same(&stamp, &served->stamp))
		return;
	if (read_store(served, &error) != KX_OK)
		kx_log(KX_LOG_WARN, "the store can't be read again: %s", error.message);
}

static kx_status open_data(struct kx_served *served, const struct kx_config *config, struct kx_error *error)
{
	kx_status status = kx_data_open(kx_config_text(config, "data"), KX_DATA_READ, &served->data, error);
	if (status == KX_OK)
		status = kx_fanout_new_one(served->wire, served->data->endpoint, &served->fanout, error);
	if (status == KX_OK && !kx_data_busy(served->data))
		status = read_store(served, error);
	if (status != KX_OK)
		return status;
	served->name = kx_strf("the store in %s", served->data->dir);
	return served->name != NULL ? KX_OK : kx_error_nomem(error);
}

static kx_status open_shards(struct kx_served *served, const char *shards, unsigned hedge_ms, struct kx_error *error)
{
	kx_status status = kx_fanout_new(served->wire, shards, hedge_ms, &served->fanout, error);
	if (status != KX_OK)
		return kx_error_prefix(error, status, "--shards: ");
	served->name = kx_strf("the shards %s", shards);
	return served->name != NULL ? KX_OK : kx_error_nomem(error);
}

static kx_status open_all(struct kx_served *served, const struct kx_config *config, struct kx_error *error)
{
	const char *shards = kx_config_text(config, "shards");
	unsigned hedge_ms = (unsigned)kx_config_int(config, "hedge");
	kx_status status = kx_wire_new(&served->wire, error);
	if (status != KX_OK)
		return status;
	kx_cli_classes_open(config, &served->classes);
	served->program = kx_engine_program();
	if (served->program == NULL)
		return kx_error_nomem(error);
	status = shards != NULL ? open_shards(served, shards, hedge_ms, error) : open_data(served, config, error);
	return status == KX_OK ? kx_join_new(kx_fanout_ask, served->fanout, LANES, &served->join, error) : status;
}

kx_status kx_served_open(const struct kx_config *config, struct kx_served **ret, struct kx_error *error)
{
	struct kx_served *served = calloc(1, sizeof(*served));
	if (served == NULL)
		return kx_error_nomem(error);
	pthread_rwlock_init(&served->lock, NULL);
	pthread_mutex_init(&served->prober_lock, NULL);
	kx_status status = open_all(served, config, error);
	if (status == KX_OK)
		*ret = served;
	else
		kx_served_free(served);
	return status;
}

void kx_served_free(struct kx_served *served)
{
	if (served == NULL)
		return;
	kx_prober_free(served->prober);
	kx_join_free(served->join);
	kx_fanout_free(served->fanout);
	kx_wire_free(served->wire);
	kx_shard_stop(served->shard);
	kx_cli_classes_done(&served->classes);
	if (served->scratch != NULL)
		(void)!kx_fs_remove_tree(served->scratch, NULL);
	kx_data_free(served->data);
	pthread_rwlock_destroy(&served->lock);
	pthread_mutex_destroy(&served->prober_lock);
	free(served->scratch);
	free(served->program);
	free(served->name);
	free(served);
}

const char *kx_served_name(const struct kx_served *served)
{
	return served->name;
}

/* The store as it was read last. */
static kx_status ask_here(struct kx_served *served, const struct kx_query_request *request, uint64_t deadline_us,
			  struct kx_answer *ret, struct kx_error *error)
{
	struct kx_answer answer = {.asked = 1, .answered = 1};
	kx_status status = KX_EBUSY;
	pthread_rwlock_rdlock(&served->lock);
	if (served->shard != NULL)
		status = kx_shard_answer_by(served->shard, request, deadline_us, &answer.reply, error);
	else
		(void)kx_error_set(error, KX_EBUSY, KX_ERROR_RETRY, "the store is about to be read");
	pthread_rwlock_unlock(&served->lock);
	if (status == KX_OK)
		*ret = answer;
	return status;
}

static kx_status ask(void *ctx, const struct kx_query_request *request, uint64_t deadline_us, struct kx_answer *ret,
		     struct kx_error *error)
{
	struct kx_served *served = ctx;
	bool elsewhere = served->data == NULL || kx_data_busy(served->data);
	return elsewhere ? kx_join_answer(served->join, request, deadline_us, ret, error)
			 : ask_here(served, request, deadline_us, ret, error);
}

static void cancel(void *ctx)
{
	struct kx_served *served = ctx;
	kx_fanout_cancel(served->fanout);
	pthread_rwlock_rdlock(&served->lock);
	if (served->shard != NULL)
		kx_shard_cancel(served->shard);
	pthread_rwlock_unlock(&served->lock);
	pthread_mutex_lock(&served->prober_lock);
	served->cancelled = true;
	if (served->prober != NULL)
		kx_prober_cancel(served->prober);
	pthread_mutex_unlock(&served->prober_lock);
}

static kx_status metrics(void *ctx, struct kx_buf *out)
{
	struct kx_served *served = ctx;
	struct kx_join_stats stats;
	kx_join_stats(served->join, &stats);
	kx_status status = kx_buf_printf(out,
					 "# HELP kinodex_joined_queries_total Single queries that went to the shards together.\n"
					 "# TYPE kinodex_joined_queries_total counter\nkinodex_joined_queries_total %" PRIu64 "\n"
					 "# HELP kinodex_joined_batches_total Messages that they went in.\n"
					 "# TYPE kinodex_joined_batches_total counter\nkinodex_joined_batches_total %" PRIu64 "\n",
					 stats.joined, stats.batches);
	return status == KX_OK ? kx_fanout_metrics(served->fanout, out) : status;
}

static const char *classifier(void *ctx, enum kx_modality modality)
{
	const struct kx_bundle *bundle = ((struct kx_served *)ctx)->classes.opened[modality == KX_AUDIO];
	return bundle != NULL ? bundle->name : NULL;
}

static const char *label(void *ctx, enum kx_modality modality, uint32_t class_id)
{
	const struct kx_bundle *bundle = ((struct kx_served *)ctx)->classes.opened[modality == KX_AUDIO];
	return bundle != NULL && class_id < bundle->class_count ? bundle->labels[class_id] : NULL;
}

/* The decoder host of thumbnails, started with the first. */
static kx_status prober_of(struct kx_served *served, struct kx_prober **ret, struct kx_error *error)
{
	kx_status status = KX_OK;
	pthread_mutex_lock(&served->prober_lock);
	if (served->cancelled)
		status = kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, "stopping");
	if (status == KX_OK && served->prober == NULL && served->data == NULL && served->scratch == NULL)
		status = kx_data_scratch(&served->scratch, error);
	if (status == KX_OK && served->prober == NULL)
		status = kx_prober_new(served->program, served->data != NULL ? served->data->work_dir : served->scratch,
				       &served->prober, error);
	*ret = served->prober;
	pthread_mutex_unlock(&served->prober_lock);
	return status;
}

struct taken {
	const struct kx_picture_request *request;
	struct kx_buf *out;
	bool done;
};

static kx_status on_frame(void *ctx, const struct kx_sample *sample, const uint8_t *rgb, struct kx_error *error)
{
	struct taken *taken = ctx;
	(void)sample;
	if (taken->done)
		return KX_OK;
	taken->done = true;
	return kx_png_encode(rgb, taken->request->width, taken->request->height, taken->out, error);
}

/* A grid that has the instant as its first point after 0, and of it only that point. */
static struct kx_frames_request frame_at(const struct kx_picture_request *request)
{
	struct kx_frames_request frames = {.fps = 1, .width = request->width, .height = request->height};
	uint64_t now = kx_clock_mono_us();
	if ((double)request->at_us >= 1e6 / FPS_MAX) {
		frames.fps = 1e6 / (double)request->at_us;
		frames.start_us = request->at_us - 1;
	}
	frames.end_us = frames.start_us + 3;
	frames.wall_limit_ms = request->deadline_us > now ? (request->deadline_us - now) / 1000 + 1 : 1;
	return frames;
}

static kx_status picture(void *ctx, int fd, const struct kx_picture_request *request, struct kx_buf *out,
			 struct kx_error *error)
{
	struct kx_frames_request frames = frame_at(request);
	struct taken taken = {.request = request, .out = out};
	struct kx_prober *prober;
	enum kx_reason reason = KX_REASON_NONE;
	kx_status status = prober_of(ctx, &prober, error);
	if (status != KX_OK)
		return status;
	status = kx_frames_read(prober, fd, request->name, &frames, on_frame, &taken, NULL, &reason, error);
	if (status == KX_OK && taken.done)
		return KX_OK;
	if (status == KX_OK)
		return kx_error_set(error, KX_EUNSUPPORTED, KX_ERROR_POISON, "%s has no picture at %.3f s", request->name,
				    (double)request->at_us / 1e6);
	if (reason == KX_REASON_WALL_LIMIT)
		return kx_error_set(error, KX_ETIMEDOUT, KX_ERROR_RETRY, "%s: it takes too long to decode up to %.3f s",
				    request->name, (double)request->at_us / 1e6);
	/* What decoders fail at is the file's fault, whatever status it has. */
	if (status != KX_ENOMEM && reason != KX_REASON_NONE && reason != KX_REASON_INTERNAL)
		error->status = status = KX_EUNSUPPORTED;
	return status;
}

struct kx_backend kx_served_backend(struct kx_served *served)
{
	return (struct kx_backend){.ctx = served,
				   .ask = ask,
				   .cancel = cancel,
				   .picture = picture,
				   .classifier = classifier,
				   .label = label,
				   .metrics = metrics};
}
