/* The roles as processes of their own, over Kafka. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/capsule.h"
#include "cli/classes.h"
#include "cli/cli.h"
#include "cli/data.h"
#include "cli/engine.h"
#include "cli/indexer.h"
#include "cli/progress.h"
#include "cli/sampling.h"
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "shard/run/shard.h"
#include "worker/run/worker.h"

#define HEALTH_MS 1000

static bool needs_brokers(const struct kx_config *config)
{
	return kx_config_text(config, "brokers") == NULL;
}

static int say_brokers(const char *role)
{
	return kx_usage("a %s alone needs --brokers HOST:PORT: the bus inside a process reaches no other. On one machine "
			"kinodex index runs all roles",
			role);
}

/* Until a signal comes (KX_OK) or the role says that it is ill. */
static kx_status serve(kx_status (*health)(void *role, struct kx_error *error), void *role, struct kx_error *error)
{
	kx_status status = KX_OK;
	while (status == KX_OK && !kx_stop_asked(&kx_interrupted)) {
		struct pollfd asked = {.fd = kx_interrupted.fd, .events = POLLIN};
		poll(&asked, 1, HEALTH_MS);
		status = health(role, error);
	}
	return status;
}

static kx_status worker_health(void *role, struct kx_error *error)
{
	return kx_worker_health(role, error);
}

static kx_status run_worker(const struct kx_config *config, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *run_dir = NULL;
	struct kx_engine *engine = NULL;
	struct kx_bus *bus = NULL;
	struct kx_worker *worker = NULL;
	kx_status status = kx_data_scratch(&run_dir, error);
	if (status == KX_OK)
		status = kx_engine_open(config, &engine, error);
	if (status == KX_OK)
		status = kx_cli_bus(config, &bus, error);
	if (status == KX_OK)
		status = kx_engine_start(engine, config, run_dir, error);
	if (status == KX_OK) {
		struct kx_worker_options options = {
			.bus = bus, .ns = kx_config_text(config, "namespace"), .pipeline = engine->pipeline};
		status = kx_worker_start(&options, &worker, error);
	}
	if (status == KX_OK)
		status = serve(worker_health, worker, error);
	kx_worker_stop(worker);
	kx_engine_free(engine);
	kx_bus_free(bus);
	if (run_dir != NULL)
		(void)!kx_fs_remove_tree(run_dir, NULL);
	return status;
}

int kx_cmd_worker(const struct kx_config *config)
{
	struct kx_error error = {0};
	if (needs_brokers(config))
		return say_brokers("worker");
	return run_worker(config, &error) == KX_OK ? KX_EXIT_DONE : kx_fail(&error);
}

static kx_status shard_health(void *role, struct kx_error *error)
{
	return kx_shard_health(role, error);
}

static kx_status run_shard(const struct kx_config *config, struct kx_error *error)
{
	struct kx_data *data = NULL;
	struct kx_bus *bus = NULL;
	struct kx_wire *wire = NULL;
	struct kx_shard *shard = NULL;
	kx_status status = kx_data_open(kx_config_text(config, "data"), KX_DATA_WRITE, &data, error);
	if (status == KX_OK)
		status = kx_cli_bus(config, &bus, error);
	if (status == KX_OK)
		status = kx_wire_new(&wire, error);
	if (status == KX_OK) {
		const char *listen = kx_config_text(config, "listen");
		struct kx_cli_classes classes;
		kx_cli_classes_open(config, &classes);
		struct kx_shard_options options = {.data_dir = data->dir,
						   .classes = classes.names,
						   .class_count = classes.count,
						   .bus = bus,
						   .ns = kx_config_text(config, "namespace"),
						   .part = (unsigned)kx_config_int(config, "shard"),
						   .parts = (unsigned)kx_config_int(config, "shards"),
						   .wire = wire,
						   .endpoint = listen != NULL ? listen : data->endpoint,
						   .control = data->control,
						   .recall = kx_config_real(config, "recall"),
						   .index_memory_bytes = (uint64_t)kx_config_int(config, "memory")
									 << 20,
						   .without_moments =
							   strcmp(kx_config_text(config, "moments-index"), "off") == 0};
		status = kx_shard_start(&options, &shard, error);
		kx_cli_classes_done(&classes);
	}
	if (status == KX_OK)
		status = serve(shard_health, shard, error);
	kx_shard_stop(shard);
	kx_wire_free(wire);
	kx_bus_free(bus);
	kx_data_free(data);
	return status;
}

int kx_cmd_shard(const struct kx_config *config)
{
	struct kx_error error = {0};
	if (kx_config_argc(config) > 0)
		return kx_cmd_care(config);
	if (needs_brokers(config))
		return say_brokers("shard");
	if (kx_config_int(config, "shard") >= kx_config_int(config, "shards"))
		return kx_usage("--shard %d of --shards %d: they are counted from 0", (int)kx_config_int(config, "shard"),
				(int)kx_config_int(config, "shards"));
	return run_shard(config, &error) == KX_OK ? KX_EXIT_DONE : kx_fail(&error);
}

static void show(void *ctx, const struct kx_coordinator_progress *now)
{
	kx_progress_show(ctx, now);
}

static kx_status probe(void *ctx, int fd, const char *name, struct kx_probe_info *ret_info, enum kx_reason *ret_reason,
		       struct kx_error *error)
{
	return kx_prober_probe(ctx, fd, name, ret_info, ret_reason, error);
}

static kx_status run_coordinator(const struct kx_config *config, const char *const *sources, size_t count,
				 struct kx_index_report *ret, struct kx_error *error)
{
	struct kx_data *data = NULL;
	struct kx_engine *engine = NULL;
	struct kx_bus *bus = NULL;
	struct kx_prober *prober = NULL;
	struct kx_progress *progress = NULL;
	struct kx_capsules *capsules = NULL;
	KX_CLEANUP(kx_schema_cleanup) struct kx_schema *schema = NULL;
	struct kx_coordinator_options options = {.sources = sources, .source_count = count};
	kx_status status = kx_cli_coordinator_options(config, &options, error);
	if (status == KX_OK && kx_config_text(config, "schema") != NULL)
		status = kx_schema_load(kx_config_text(config, "schema"), &schema, error);
	if (status == KX_OK)
		status = kx_data_open(kx_config_text(config, "data"), KX_DATA_LEDGER, &data, error);
	if (status == KX_OK)
		status = kx_engine_open(config, &engine, error);
	struct kx_sampling sampling = kx_cli_planned_sampling(&options);
	if (status == KX_OK)
		status = kx_engine_recipe(engine, config, &sampling, options.recipe_sha256, error);
	if (status == KX_OK)
		status = kx_cli_bus(config, &bus, error);
	if (status == KX_OK)
		status = kx_prober_new(engine->program, data->work_dir, &prober, error);
	if (status == KX_OK)
		status = kx_progress_new(kx_config_flag(config, "quiet"), &progress, error);
	if (status == KX_OK)
		status = kx_capsules_new(data->dir, options.attempts_max, &capsules, error);
	if (status == KX_OK) {
		kx_prober_watch(prober, kx_capsules_failed, capsules);
		options.schema = schema;
		options.bus = bus;
		options.data_dir = data->dir;
		options.probe = (struct kx_probe){.ctx = prober, .probe = probe};
		options.fetch = engine->fetch;
		options.progress = show;
		options.ctx = progress;
		uint64_t begun_us = kx_clock_mono_us();
		status = kx_coordinator_run(&options, &ret->run, error);
		ret->wall_us = kx_clock_mono_us() - begun_us;
	}
	kx_progress_free(progress);
	kx_prober_free(prober);
	kx_capsules_end(capsules);
	kx_bus_free(bus);
	kx_engine_free(engine);
	kx_data_free(data);
	return status;
}

int kx_cmd_coordinator(const struct kx_config *config)
{
	if (needs_brokers(config))
		return say_brokers("coordinator");
	if (kx_config_argc(config) == 0)
		return kx_usage("coordinate what? Name folders, files, manifests or addresses");
	struct kx_error error = {0};
	if (kx_cli_decode(config, &(struct kx_sampling){0}, &error) != KX_OK)
		return kx_usage("%s", error.message);
	struct kx_index_report report = {0};
	size_t count = kx_config_argc(config);
	const char **sources = calloc(count, sizeof(*sources));
	if (sources == NULL)
		return KX_EXIT_FAILED;
	for (size_t i = 0; i < count; i++)
		sources[i] = kx_config_arg(config, i);
	kx_status status = run_coordinator(config, sources, count, &report, &error);
	free(sources);
	if (status != KX_OK && status != KX_ECANCELED)
		return kx_fail(&error);
	return kx_index_print(config, &report, status == KX_ECANCELED);
}
