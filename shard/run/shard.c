#include "shard/run/shard.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/fs.h"
#include "common/base/log.h"
#include "shard/query/moments_index.h"
#include "shard/run/internal.h"

#define SERVER_QUEUE 64
#define WARM_AFTER 8u        /* answers: whoever asks so often will go on asking */
#define READ_MOMENTS 20000u /* as many are read sooner than their index is walked for one answer */

void kx_shard_fail(struct kx_shard *shard, kx_status status, const struct kx_error *error)
{
	pthread_mutex_lock(&shard->lock);
	if (!shard->failure.status) {
		shard->failure = *error;
		shard->failure.status = status;
	}
	pthread_mutex_unlock(&shard->lock);
}

kx_status kx_shard_health(struct kx_shard *shard, struct kx_error *error)
{
	kx_status status;

	pthread_mutex_lock(&shard->lock);
	status = shard->failure.status;
	if (status && error)
		*error = shard->failure;
	pthread_mutex_unlock(&shard->lock);
	return status;
}

uint64_t kx_shard_skipped(struct kx_shard *shard)
{
	return atomic_load(&shard->skipped);
}

/* The thread has closed the socket, unless it was never started. */
static void end_server(struct kx_shard_server *server)
{
	if (server->running)
		pthread_join(server->thread, NULL);
	if (server->socket)
		kx_wire_socket_close(server->socket, 0);
}

void kx_shard_stop(struct kx_shard *shard)
{
	if (!shard)
		return;
	if (shard->stop_ready)
		kx_stop_ask(&shard->stop);
	if (shard->orders.running)
		kx_kv_stop_compaction(kx_store_kv(shard->store));
	if (shard->consuming)
		pthread_join(shard->consumer_thread, NULL);
	end_server(&shard->queries);
	end_server(&shard->orders);
	/* The thread has closed it, unless it was never started. */
	kx_bus_consumer_close(shard->consumer);
	kx_outbox_free(shard->outbox);
	if (shard->mirror && !shard->failure.status) /* else it may not be what is stored */
		kx_mirror_keep(shard->mirror);
	kx_mirror_free(shard->mirror);
	kx_index_close(shard->index);
	kx_duplicates_file_free(shard->duplicates);
	kx_store_close(shard->store);
	if (shard->stop_ready)
		kx_stop_done(&shard->stop);
	pthread_mutex_destroy(&shard->lock);
	free(shard);
}

static void shard_cleanup(struct kx_shard **shard)
{
	kx_shard_stop(*shard);
}

/* Whoever opens a store to read it for one answer reads every record anyway: few vectors are then compared as they are. */
static kx_status use_index(struct kx_shard *shard, const struct kx_shard_options *options)
{
	kx_mirror_set_recall(shard->mirror, options->recall);
	if (!shard->index || (options->read_only && kx_shard_index_rows(shard->index) < KX_MIRROR_EXACT_VIDEOS))
		return KX_OK;
	return kx_mirror_use_index(shard->mirror, shard->index, shard->store, options->read_only);
}

/* Without, what an index of before holds of moments goes: nobody would keep it up. */
static kx_status use_moments(struct kx_shard *shard, const struct kx_shard_options *options, struct kx_error *error)
{
	uint64_t removed = 0;
	kx_status status = KX_OK;

	if (!shard->index || (options->read_only && kx_shard_index_moments(shard->index) < READ_MOMENTS))
		return KX_OK;
	if (!options->without_moments)
		return kx_mirror_use_moments(shard->mirror, shard->index, shard->store, options->read_only) ? kx_error_nomem(error)
													 : KX_OK;
	if (!options->read_only && kx_shard_index_moments(shard->index))
		status = kx_store_set_snapshot(shard->store, NULL, 0, error); /* it says where they are */
	if (!options->read_only && !status)
		status = kx_moments_drop(shard->index, &removed, error);
	if (removed)
		kx_log(KX_LOG_INFO, "index: %llu moments were taken out", (unsigned long long)removed);
	return status;
}

static kx_status open_store(struct kx_shard *shard, const struct kx_shard_options *options, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *snapshots = NULL;
	kx_status status = kx_shard_store_open(options->data_dir, options->read_only, &shard->store, error);

	if (!status)
		status = kx_shard_index_open(shard->store, options->data_dir, options->read_only, false,
					     options->index_memory_bytes, &shard->index, error);
	if (status)
		return status;
	snapshots = kx_fs_join(options->data_dir, "mirror-0");
	if (!snapshots || kx_mirror_new(&shard->mirror) || kx_duplicates_file_new(options->data_dir, &shard->duplicates))
		return kx_error_nomem(error);
	if (options->read_only) /* else the thread that consumes has everything loaded at once */
		kx_mirror_warm_after(shard->mirror, WARM_AFTER);
	if (kx_mirror_use_snapshots(shard->mirror, snapshots) || use_index(shard, options))
		return kx_error_nomem(error);
	status = use_moments(shard, options, error);
	if (status)
		return status;
	for (size_t i = 0; i < options->class_count; i++)
		if (kx_mirror_set_classes(shard->mirror, &options->classes[i]))
			return kx_error_nomem(error);
	return kx_mirror_defer(shard->mirror, shard->store, shard->index, &shard->stop, error);
}

static kx_status start_consumer(struct kx_shard *shard, const struct kx_shard_options *options, struct kx_error *error)
{
	kx_status status;

	shard->bus = options->bus;
	kx_topics_init(&shard->topics, options->ns);
	if (kx_outbox_new(shard->bus, shard->topics.name[KX_TOPIC_RUNS], &shard->outbox))
		return kx_error_nomem(error);
	status = kx_store_drop_offsets(shard->store, kx_bus_identity(shard->bus), error);
	if (!status)
		status = kx_shard_subscribe(shard, options, error);
	if (!status)
		status = kx_thread_start(&shard->consumer_thread, "kx-shard-take", kx_shard_consume, shard, error);
	shard->consuming = !status;
	return status;
}

static kx_status start_server(struct kx_shard *shard, struct kx_shard_server *server, struct kx_wire *wire,
			      const char *endpoint, const char *name, struct kx_error *error)
{
	kx_status status = kx_wire_server(wire, endpoint, SERVER_QUEUE, &server->socket, error);

	server->shard = shard;
	if (!status)
		status = kx_thread_start(&server->thread, name, kx_shard_serve, server, error);
	server->running = !status;
	return status;
}

static kx_status start_servers(struct kx_shard *shard, const struct kx_shard_options *options, struct kx_error *error)
{
	kx_status status =
		start_server(shard, &shard->queries, options->wire, options->endpoint, "kx-shard-answer", error);

	shard->orders.takes_orders = true;
	if (!status && options->control && !options->read_only)
		status = start_server(shard, &shard->orders, options->wire, options->control, "kx-shard-order", error);
	return status;
}

kx_status kx_shard_start(const struct kx_shard_options *options, struct kx_shard **ret, struct kx_error *error)
{
	KX_CLEANUP(shard_cleanup) struct kx_shard *shard = NULL;
	kx_status status;

	if (!options->read_only && (!options->bus || !options->ns))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "a shard that writes needs a bus and its namespace");
	shard = calloc(1, sizeof(*shard));
	if (!shard)
		return kx_error_nomem(error);
	if (pthread_mutex_init(&shard->lock, NULL)) {
		free(KX_STEAL(shard));
		return kx_error_nomem(error);
	}
	status = kx_stop_init(&shard->stop, error);
	shard->stop_ready = !status;
	if (!status)
		status = open_store(shard, options, error);
	if (!status && options->wire)
		status = start_servers(shard, options, error);
	if (!status && !options->read_only)
		status = start_consumer(shard, options, error);
	if (status)
		return status;
	*ret = KX_STEAL(shard);
	return KX_OK;
}

kx_status kx_shard_answer_by(struct kx_shard *shard, const struct kx_query_request *request, uint64_t deadline_us,
			     struct kx_query_reply **ret, struct kx_error *error)
{
	struct kx_query_context context = {.store = shard->store,
					   .mirror = shard->mirror,
					   .index = shard->index,
					   .duplicates = shard->duplicates,
					   .stop = &shard->stop,
					   .deadline_us = deadline_us};

	return kx_query_answer(&context, request, ret, error);
}

kx_status kx_shard_answer(struct kx_shard *shard, const struct kx_query_request *request, struct kx_query_reply **ret,
			  struct kx_error *error)
{
	return kx_shard_answer_by(shard, request, 0, ret, error);
}

void kx_shard_cancel(struct kx_shard *shard)
{
	kx_stop_ask(&shard->stop);
}
