#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/actions.h"
#include "cli/cli.h"
#include "cli/json.h"
#include "cli/labels.h"
#include "cli/lookup.h"
#include "cli/query.h"
#include "cli/sampling.h"
#include "common/base/str.h"

#define MOMENT_S 10u

/* One line of the answer: the whole video, or one moment of one bundle's classes. */
struct verdict {
	const struct kx_bundle *bundle;
	bool whole;
	uint32_t index;
	uint32_t class_count;
	const uint32_t *ids;
	const float *scores;
};

struct answer {
	const struct kx_config *config;
	const char *name;
	json_t *json; /* NULL: text */
};

static void say(struct answer *answer, const struct verdict *verdict)
{
	uint32_t top = (uint32_t)kx_config_int(answer->config, "top");
	if (answer->json != NULL) {
		json_t *row = json_pack("{s:s, s:o}", "bundle", verdict->bundle->name, "classes",
					kx_classes_json(verdict->bundle, verdict->class_count, verdict->ids,
							verdict->scores, top));
		if (!verdict->whole)
			json_object_set_new(row, "from_s", json_integer((json_int_t)verdict->index * MOMENT_S));
		json_array_append_new(json_object_get(answer->json, verdict->whole ? "video" : "moments"), row);
		return;
	}
	if (verdict->whole)
		printf("%-8s whole     ", verdict->bundle->name);
	else
		printf("%-8s %3" PRIu32 ":%02" PRIu32 "    ", verdict->bundle->name, verdict->index * MOMENT_S / 60,
		       verdict->index * MOMENT_S % 60);
	kx_classes_print(verdict->bundle, verdict->class_count, verdict->ids, verdict->scores, top);
}

static const struct kx_bundle *bundle_of(const struct kx_engine *engine, enum kx_modality modality)
{
	return modality == KX_VISUAL ? engine->visual : engine->audio;
}

static void say_modality(struct answer *answer, const struct kx_engine *engine,
			 const struct kx_modality_result *result)
{
	struct verdict verdict = {.bundle = bundle_of(engine, result->modality),
				  .whole = true,
				  .class_count = result->class_count,
				  .ids = result->class_ids,
				  .scores = result->class_scores};
	say(answer, &verdict);
}

static void say_moment(struct answer *answer, const struct kx_engine *engine, enum kx_modality modality,
		       uint32_t index, uint32_t count, const uint32_t *ids, const float *scores)
{
	struct verdict verdict = {.bundle = bundle_of(engine, modality),
				  .index = index,
				  .class_count = count,
				  .ids = ids,
				  .scores = scores};
	say(answer, &verdict);
}

/* How its pictures were taken, for machines. */
static void say_decode(struct answer *answer, enum kx_decode_mode mode, uint64_t tolerance_us, uint64_t error_us)
{
	if (answer->json == NULL)
		return;
	json_t *decode = json_pack("{s:s, s:f}", "mode", kx_decode_mode_name(mode), "max_time_error_s",
				   (double)error_us / 1e6);
	if (mode == KX_DECODE_TOLERANT)
		json_object_set_new(decode, "tolerance_s", json_real((double)tolerance_us / 1e6));
	json_object_set_new(answer->json, "decode", decode);
}

static kx_status classify_stored(struct answer *answer, struct kx_lookup *lookup, const struct kx_engine *engine,
				 char *id, char **ret_source, struct kx_error *error)
{
	struct kx_query_request request = {.kind = KX_QUERY_VIDEO, .video_id = id, .with_moments = true};
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL;
	kx_status status = kx_lookup_ask(lookup, &request, &reply, error);
	if (status != KX_OK)
		return status;
	const struct kx_video_result *result = &reply->video->result;
	for (uint32_t i = 0; i < result->modality_count; i++)
		say_modality(answer, engine, &result->modalities[i]);
	for (uint32_t i = 0; i < reply->moment_count; i++) {
		const struct kx_moment_classes *moment = &reply->moments[i];
		say_moment(answer, engine, moment->modality, moment->index, moment->class_count, moment->class_ids,
			   moment->class_scores);
	}
	say_decode(answer, result->decode_mode, result->decode_tolerance_us, result->max_time_error_us);
	*ret_source = kx_strdup(reply->video->info.source);
	return *ret_source != NULL ? KX_OK : kx_error_nomem(error);
}

static kx_status classify_file(struct answer *answer, struct kx_lookup *lookup, struct kx_engine *engine,
			       struct kx_error *error)
{
	KX_CLEANUP(kx_embedded_cleanup) struct kx_embedded *embedded = NULL;
	KX_CLEANUP(kx_merge_cleanup) struct kx_merge *merge = NULL;
	struct kx_modality_result modalities[2];
	uint32_t count = 0;
	kx_status status = kx_embed_file(answer->config, engine, kx_lookup_data(lookup)->work_dir, answer->name,
					 &embedded, error);
	if (status == KX_OK)
		status = kx_embedded_merge(embedded, &merge, modalities, &count, error);
	if (status != KX_OK)
		return status;
	for (uint32_t i = 0; i < count; i++)
		say_modality(answer, engine, &modalities[i]);
	struct kx_sampling sampling = {0};
	uint64_t error_us = 0;
	for (uint32_t i = 0; i < embedded->moment_count; i++) {
		const struct kx_moment *moment = embedded->moments[i];
		error_us = moment->max_time_error_us > error_us ? moment->max_time_error_us : error_us;
		say_moment(answer, engine, moment->modality, moment->index, moment->class_count, moment->class_ids,
			   moment->class_scores);
	}
	status = kx_cli_decode(answer->config, &sampling, error);
	say_decode(answer, sampling.mode, sampling.tolerance_us, error_us);
	return status;
}

static void on_action(void *ctx, const struct kx_bundle *bundle, bool whole, uint32_t moment, uint32_t count,
		      const uint32_t *ids, const float *scores)
{
	struct verdict verdict = {.bundle = bundle,
				  .whole = whole,
				  .index = moment,
				  .class_count = count,
				  .ids = ids,
				  .scores = scores};
	say(ctx, &verdict);
}

static kx_status classify(struct answer *answer, struct kx_error *error)
{
	const struct kx_config *config = answer->config;
	KX_CLEANUP(kx_lookup_cleanup) struct kx_lookup *lookup = NULL;
	KX_CLEANUP(kx_engine_cleanup) struct kx_engine *engine = NULL;
	KX_CLEANUP(kx_cleanup_free) char *id = NULL;
	KX_CLEANUP(kx_cleanup_free) char *source = NULL;
	kx_status status = kx_lookup_open(kx_config_text(config, "data"), &lookup, error);
	if (status == KX_OK) {
		kx_lookup_patience(lookup, (int)kx_config_int(config, "timeout"));
		status = kx_engine_open(config, &engine, error);
	}
	if (status == KX_OK)
		status = kx_lookup_resolve(lookup, answer->name, &id, error);
	if (status != KX_OK)
		return status;
	status = id != NULL ? classify_stored(answer, lookup, engine, id, &source, error)
			    : classify_file(answer, lookup, engine, error);
	if (status != KX_OK || !kx_config_flag(config, "actions"))
		return status;
	struct kx_actions_sink sink = {.ctx = answer, .classes = on_action};
	return kx_actions_run(config, engine, kx_lookup_data(lookup)->work_dir, source != NULL ? source : answer->name,
			      &sink, error);
}

int kx_cmd_classify(const struct kx_config *config)
{
	if (kx_config_argc(config) != 1)
		return kx_usage("classify what? Name one video: kinodex classify ID|FILE");
	struct kx_error error = {0};
	if (kx_cli_decode(config, &(struct kx_sampling){0}, &error) != KX_OK)
		return kx_usage("%s", error.message);
	struct answer answer = {.config = config, .name = kx_config_arg(config, 0)};
	if (kx_config_flag(config, "json"))
		answer.json = json_pack("{s:s, s:[], s:[]}", "query", answer.name, "video", "moments");
	kx_status status = classify(&answer, &error);
	if (status == KX_OK && kx_config_flag(config, "json"))
		status = kx_json_print(json_incref(answer.json), &error);
	json_decref(answer.json);
	return status == KX_OK ? KX_EXIT_DONE : kx_fail(&error);
}
