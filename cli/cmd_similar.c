#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/json.h"
#include "cli/lookup.h"
#include "cli/query.h"
#include "cli/sampling.h"
#include "common/base/str.h"

/* "visual=0.6,audio=0.4": each at least 0, not both 0; a name that is left out weighs 0. */
static kx_status parse_weights(const char *text, double *ret_visual, double *ret_audio, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *copy = kx_strdup(text);
	double visual = 0, audio = 0;
	char *rest = NULL;
	if (copy == NULL)
		return kx_error_nomem(error);
	for (char *item = strtok_r(copy, ",", &rest); item != NULL; item = strtok_r(NULL, ",", &rest)) {
		char *value = strchr(item, '=');
		double *into = NULL;
		if (value != NULL) {
			*value++ = '\0';
			into = strcmp(item, "visual") == 0 ? &visual : strcmp(item, "audio") == 0 ? &audio : NULL;
		}
		if (into == NULL || kx_parse_double(value, into) != KX_OK || *into < 0)
			return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
					    "--weights %s: write visual=X,audio=Y with numbers that are not negative", text);
	}
	if (visual + audio <= 0)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
				    "--weights %s: one of them must be above 0", text);
	*ret_visual = visual;
	*ret_audio = audio;
	return KX_OK;
}

static json_t *match_json(const struct kx_moment_match *match)
{
	return json_pack("{s:f, s:f, s:f, s:f, s:f}", "ours_s", (double)match->ours_us / 1e6, "theirs_s",
			 (double)match->theirs_us / 1e6, "score", match->score, "visual", match->visual, "audio",
			 match->audio);
}

static json_t *hit_json(const struct kx_similar_hit *hit, bool with_moments)
{
	json_t *out = json_pack("{s:s%, s:s%, s:f, s:f, s:f, s:b, s:b, s:f}", "id", hit->video_id,
				strlen(hit->video_id), "title", hit->title, strlen(hit->title), "score", hit->score,
				"visual", hit->visual, "audio", hit->audio, "has_visual", hit->has_visual, "has_audio",
				hit->has_audio, "duration_s", (double)hit->duration_us / 1e6);
	if (out == NULL || !with_moments)
		return out;
	json_t *matches = json_array();
	for (uint32_t i = 0; i < hit->match_count; i++)
		json_array_append_new(matches, match_json(&hit->matches[i]));
	json_object_set_new(out, "moments", matches);
	return out;
}

static kx_status print_json(const char *name, const struct kx_query_reply *reply, bool with_moments,
			    struct kx_error *error)
{
	json_t *hits = json_array();
	for (uint32_t i = 0; i < reply->similar.hit_count; i++)
		json_array_append_new(hits, hit_json(&reply->similar.hits[i], with_moments));
	return kx_json_print(json_pack("{s:s, s:o}", "query", name, "hits", hits), error);
}

static void print_time(uint64_t us)
{
	uint64_t s = us / 1000000;
	if (s >= 3600)
		printf("%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, s / 3600, s / 60 % 60, s % 60);
	else
		printf("%" PRIu64 ":%02" PRIu64, s / 60, s % 60);
}

static void print_hit(const struct kx_similar_hit *hit)
{
	printf("%6.3f  %-40s", hit->score, hit->video_id);
	printf("  picture %s", hit->has_visual ? "" : "-");
	if (hit->has_visual)
		printf("%.3f", hit->visual);
	printf("  sound %s", hit->has_audio ? "" : "-");
	if (hit->has_audio)
		printf("%.3f", hit->audio);
	printf("%s%s\n", hit->title[0] != '\0' ? "  " : "", hit->title);
	for (uint32_t i = 0; i < hit->match_count; i++) {
		printf("          %.3f  ours ", hit->matches[i].score);
		print_time(hit->matches[i].ours_us);
		printf("  theirs ");
		print_time(hit->matches[i].theirs_us);
		putchar('\n');
	}
}

static kx_status print_reply(const struct kx_config *config, const char *name, const struct kx_query_reply *reply,
			     struct kx_error *error)
{
	bool with_moments = kx_config_flag(config, "moments");
	if (kx_config_flag(config, "json"))
		return print_json(name, reply, with_moments, error);
	printf(" score  video\n");
	for (uint32_t i = 0; i < reply->similar.hit_count; i++)
		print_hit(&reply->similar.hits[i]);
	if (reply->similar.hit_count == 0)
		printf("no other video shares picture or sound with it\n");
	return KX_OK;
}

/* Embeds the file and puts its vectors into the query. vectors own them. */
static kx_status add_vectors(const struct kx_config *config, struct kx_lookup *lookup, const char *path,
			     struct kx_similar_query *query, struct kx_vectors *vectors, struct kx_error *error)
{
	KX_CLEANUP(kx_engine_cleanup) struct kx_engine *engine = NULL;
	KX_CLEANUP(kx_embedded_cleanup) struct kx_embedded *embedded = NULL;
	kx_status status = kx_engine_open(config, &engine, error);
	if (status == KX_OK)
		status = kx_embed_file(config, engine, kx_lookup_data(lookup)->work_dir, path, &embedded, error);
	if (status == KX_OK)
		status = kx_vectors_of(embedded, query->with_moments, vectors, error);
	query->vector_count = vectors->vector_count;
	query->vectors = vectors->vectors;
	query->moment_count = vectors->moment_count;
	query->moments = vectors->moments;
	query->moment_us = KX_CLI_MOMENT_US;
	return status;
}

int kx_cmd_similar(const struct kx_config *config)
{
	if (kx_config_argc(config) != 1)
		return kx_usage("similar to what? Name one video: kinodex similar ID|FILE");
	struct kx_error error = {0};
	if (kx_cli_decode(config, &(struct kx_sampling){0}, &error) != KX_OK)
		return kx_usage("%s", error.message);
	const char *name = kx_config_arg(config, 0);
	struct kx_query_request request = {
		.kind = KX_QUERY_SIMILAR,
		.similar = {.video_id = (char *)"",
			    .k = (uint32_t)kx_config_int(config, "k"),
			    .with_moments = kx_config_flag(config, "moments")},
	};
	if (parse_weights(kx_config_text(config, "weights"), &request.similar.weight_visual,
			  &request.similar.weight_audio,
			  &error) != KX_OK)
		return kx_usage("%s", error.message);
	KX_CLEANUP(kx_lookup_cleanup) struct kx_lookup *lookup = NULL;
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL;
	KX_CLEANUP(kx_cleanup_free) char *id = NULL;
	struct kx_vectors vectors = {0};
	kx_status status = kx_lookup_open(kx_config_text(config, "data"), &lookup, &error);
	if (status == KX_OK)
		status = kx_lookup_resolve(lookup, name, &id, &error);
	if (status == KX_OK && id != NULL)
		request.similar.video_id = id;
	else if (status == KX_OK)
		status = add_vectors(config, lookup, name, &request.similar, &vectors, &error);
	if (status == KX_OK)
		status = kx_lookup_ask(lookup, &request, &reply, &error);
	kx_vectors_done(&vectors);
	if (status == KX_OK)
		status = print_reply(config, name, reply, &error);
	return status == KX_OK ? KX_EXIT_DONE : kx_fail(&error);
}
