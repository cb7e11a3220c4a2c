#include "cli/indexer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "cli/capsule.h"
#include "cli/classes.h"
#include "cli/cli.h"
#include "cli/data.h"
#include "cli/embed.h"
#include "cli/engine.h"
#include "cli/progress.h"
#include "cli/sampling.h"
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/bus/topics.h"
#include "common/record/query.h"
#include "shard/run/shard.h"
#include "worker/media/media.h"
#include "worker/run/worker.h"

#define LOCAL_TOPIC_BYTES (32u << 20)
#define KAFKA_QUEUE_BYTES (64u << 20)
#define MIB (1u << 20)

struct index_run {
	struct kx_data *data;
	struct kx_engine *engine;
	struct kx_bus *bus;
	struct kx_wire *wire;
	struct kx_shard *shard;
	struct kx_worker *worker;
	struct kx_prober *prober;
	struct kx_progress *progress;
	struct kx_capsules *capsules;
};

static kx_status check_namespace(const char *ns, struct kx_error *error)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
	size_t len = strlen(ns);
	if (len > 0 && len <= KX_NAMESPACE_MAX && strspn(ns, letters) == len)
		return KX_OK;
	return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
			    "--namespace \"%s\": 1 to %d letters, digits, '-' and '_' make a namespace", ns, KX_NAMESPACE_MAX);
}

static kx_status make_topics(const struct kx_config *config, struct kx_bus *bus, struct kx_error *error)
{
	int partitions = (int)kx_config_int(config, "partitions");
	struct kx_topics topics;
	kx_topics_init(&topics, kx_config_text(config, "namespace"));
	for (int i = 0; i < KX_TOPIC_COUNT; i++) {
		int wanted = i == KX_TOPIC_RUNS || i == KX_TOPIC_DEAD ? 1 : partitions;
		kx_status status = kx_bus_topic(bus, topics.name[i], wanted, i == KX_TOPIC_DEAD, NULL, error);
		if (status != KX_OK)
			return status;
	}
	return KX_OK;
}

kx_status kx_cli_bus(const struct kx_config *config, struct kx_bus **ret, struct kx_error *error)
{
	const char *brokers = kx_config_text(config, "brokers");
	struct kx_bus *bus = NULL;
	kx_status status = check_namespace(kx_config_text(config, "namespace"), error);
	if (status != KX_OK)
		return status;
	if (brokers == NULL) {
		struct kx_bus_local_options options = {.topic_bytes_max = LOCAL_TOPIC_BYTES};
		status = kx_bus_local_new(&options, &bus, error);
	} else {
		struct kx_bus_kafka_options options = {.brokers = brokers, .queue_bytes_max = KAFKA_QUEUE_BYTES};
		status = kx_bus_kafka_new(&options, &bus, error);
	}
	if (status == KX_OK)
		status = make_topics(config, bus, error);
	if (status == KX_OK)
		*ret = KX_STEAL(bus);
	kx_bus_free(bus);
	return status;
}

kx_status kx_cli_coordinator_options(const struct kx_config *config, struct kx_coordinator_options *ret,
				     struct kx_error *error)
{
	uint64_t segment_us = (uint64_t)kx_config_int(config, "segment") * 1000000u;
	if (segment_us % KX_CLI_MOMENT_US != 0)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "--segment %u is not a multiple of %u seconds",
				    (unsigned)(segment_us / 1000000u), KX_CLI_MOMENT_US / 1000000u);
	struct kx_sampling sampling = {0};
	kx_status status = kx_cli_decode(config, &sampling, error);
	if (status != KX_OK)
		return status;
	ret->ns = kx_config_text(config, "namespace");
	ret->fps = kx_config_real(config, "fps");
	ret->segment_us = segment_us;
	ret->moment_us = KX_CLI_MOMENT_US;
	ret->decode_mode = sampling.mode;
	ret->decode_tolerance_us = sampling.tolerance_us;
	ret->software = kx_media_software();
	ret->attempts_max = (uint32_t)kx_config_int(config, "attempts");
	ret->wall_limit_ms = (uint64_t)kx_config_int(config, "job-wall-limit") * 1000u;
	ret->cpu_limit_ms = (uint64_t)kx_config_int(config, "job-cpu-limit") * 1000u;
	ret->memory_limit_bytes = (uint64_t)kx_config_int(config, "job-memory-limit") * MIB;
	ret->stop = &kx_interrupted;
	return KX_OK;
}

struct kx_sampling kx_cli_planned_sampling(const struct kx_coordinator_options *options)
{
	return (struct kx_sampling){
		.fps = options->fps,
		.mode = options->decode_mode,
		.tolerance_us = options->decode_tolerance_us,
		.moment_us = options->moment_us,
	};
}

static kx_status probe(void *ctx, int fd, const char *name, struct kx_probe_info *ret_info, enum kx_reason *ret_reason,
		       struct kx_error *error)
{
	return kx_prober_probe(ctx, fd, name, ret_info, ret_reason, error);
}

static kx_status health(void *ctx, struct kx_error *error)
{
	struct index_run *run = ctx;
	kx_status status = kx_shard_health(run->shard, error);
	return status == KX_OK ? kx_worker_health(run->worker, error) : status;
}

static void show_progress(void *ctx, const struct kx_coordinator_progress *now)
{
	struct index_run *run = ctx;
	kx_progress_show(run->progress, now);
}

/* The shard comes first: it is what tells a full disk or another version before anything is decoded. */
static kx_status start_roles(struct index_run *run, const struct kx_config *config, struct kx_error *error)
{
	uint32_t attempts = (uint32_t)kx_config_int(config, "attempts");
	kx_status status = kx_data_open(kx_config_text(config, "data"), KX_DATA_WRITE, &run->data, error);
	if (status == KX_OK)
		status = kx_capsules_new(run->data->dir, attempts, &run->capsules, error);
	if (status == KX_OK)
		status = kx_engine_open(config, &run->engine, error);
	if (status == KX_OK)
		status = kx_cli_bus(config, &run->bus, error);
	if (status == KX_OK)
		status = kx_wire_new(&run->wire, error);
	if (status != KX_OK)
		return status;
	const char *ns = kx_config_text(config, "namespace");
	struct kx_cli_classes classes;
	kx_cli_classes_of(run->engine, &classes);
	struct kx_shard_options shard = {
		.data_dir = run->data->dir, .bus = run->bus, .ns = ns, .wire = run->wire,
		.endpoint = run->data->endpoint, .control = run->data->control, .classes = classes.names, .class_count = classes.count,
		.recall = kx_config_real(config, "recall"),
		.index_memory_bytes = (uint64_t)kx_config_int(config, "memory") << 20,
		.without_moments = strcmp(kx_config_text(config, "moments-index"), "off") == 0};
	status = kx_shard_start(&shard, &run->shard, error);
	if (status == KX_OK)
		status = kx_prober_new(run->engine->program, run->data->work_dir, &run->prober, error);
	if (status != KX_OK)
		return status;
	run->engine->beside = run->prober;
	run->engine->lazy = true; /* often nothing has changed, and there is nothing to do */
	status = kx_engine_start(run->engine, config, run->data->work_dir, error);
	if (status != KX_OK)
		return status;
	kx_prober_watch(run->prober, kx_capsules_failed, run->capsules);
	struct kx_worker_options worker = {.bus = run->bus, .ns = ns, .pipeline = run->engine->pipeline,
					   .failed = kx_capsules_failed, .failed_ctx = run->capsules};
	return kx_worker_start(&worker, &run->worker, error);
}

static void stop_roles(struct index_run *run)
{
	kx_worker_stop(KX_STEAL(run->worker));
	kx_engine_free(KX_STEAL(run->engine)); /* before the prober, whose decoder host it uses */
	kx_prober_free(KX_STEAL(run->prober));
	kx_shard_stop(KX_STEAL(run->shard));
	kx_wire_free(KX_STEAL(run->wire));
	kx_bus_free(KX_STEAL(run->bus));
	kx_progress_free(KX_STEAL(run->progress));
	kx_capsules_end(KX_STEAL(run->capsules));
}

static kx_status coordinate(struct index_run *run, const struct kx_config *config,
			    const struct kx_index_request *request,
			    struct kx_coordinator_report *ret, struct kx_error *error)
{
	struct kx_coordinator_options options = {0};
	KX_CLEANUP(kx_schema_cleanup) struct kx_schema *schema = NULL;
	kx_status status = kx_cli_coordinator_options(config, &options, error);
	if (status == KX_OK && request->schema != NULL)
		status = kx_schema_load(request->schema, &schema, error);
	if (status != KX_OK)
		return status;
	options.schema = schema;
	options.bus = run->bus;
	options.data_dir = run->data->dir;
	options.sources = request->sources;
	options.source_count = request->source_count;
	options.replay_ids = request->replay_ids;
	options.replay_count = request->replay_count;
	options.probe = (struct kx_probe){.ctx = run->prober, .probe = probe};
	options.fetch = run->engine->fetch;
	options.progress = show_progress;
	options.health = health;
	options.ctx = run;
	struct kx_sampling sampling = kx_cli_planned_sampling(&options);
	kx_pipeline_recipe(run->engine->pipeline, &sampling, options.recipe_sha256);
	return kx_coordinator_run(&options, ret, error);
}

static void read_store_size(struct index_run *run, struct kx_index_report *report)
{
	struct kx_query_request request = {.kind = KX_QUERY_STATS};
	struct kx_query_reply *reply = NULL;
	if (kx_shard_answer(run->shard, &request, &reply, NULL) != KX_OK)
		return;
	report->store_media_us = reply->stats.media_us;
	report->store_videos = reply->stats.videos;
	kx_query_reply_free(reply);
}

/* After the roles have stopped: their children's CPU time counts only when they were waited for. */
static void read_usage(struct kx_index_report *report, const struct kx_data *data)
{
	struct rusage self, children;
	getrusage(RUSAGE_SELF, &self);
	getrusage(RUSAGE_CHILDREN, &children);
	long peak_kib = self.ru_maxrss > children.ru_maxrss ? self.ru_maxrss : children.ru_maxrss;
	report->peak_rss_bytes = (uint64_t)peak_kib * 1024u;
	report->cpu_us = kx_clock_cpu_us();
	KX_CLEANUP(kx_cleanup_free) char *store = kx_fs_join(data->dir, "shard-0");
	if (store != NULL)
		report->disk_bytes = kx_fs_tree_bytes(store);
}

kx_status kx_index_run(const struct kx_config *config, const struct kx_index_request *request,
		       struct kx_index_report *ret, struct kx_error *error)
{
	struct index_run run = {0};
	uint64_t begun_us = kx_clock_mono_us();
	bool quiet = kx_config_flag(config, "quiet");
	kx_status status = start_roles(&run, config, error);
	if (status == KX_OK)
		status = kx_progress_new(quiet, &run.progress, error);
	if (status == KX_OK)
		status = coordinate(&run, config, request, &ret->run, error);
	if (status == KX_OK || status == KX_ECANCELED)
		read_store_size(&run, ret);
	stop_roles(&run);
	if (run.data != NULL)
		read_usage(ret, run.data);
	ret->wall_us = kx_clock_mono_us() - begun_us;
	kx_data_free(run.data);
	return status;
}
