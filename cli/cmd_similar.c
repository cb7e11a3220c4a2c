#include <stdlib.h>
#include <string.h>

#include "cli/classes.h"
#include "cli/cli.h"
#include "cli/hits.h"
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

/* Ids between commas; the list and the text behind it are the caller's to free. */
static kx_status parse_ids(const char *text, char **ret_copy, char ***ret_ids, uint32_t *ret_count, struct kx_error *error)
{
	char *copy = kx_strdup(text), *rest = NULL;
	char **ids = calloc(strlen(text) + 1, sizeof(char *));
	uint32_t count = 0;
	*ret_copy = copy;
	*ret_ids = ids;
	if (copy == NULL || ids == NULL)
		return kx_error_nomem(error);
	for (char *id = strtok_r(copy, ",", &rest); id != NULL; id = strtok_r(NULL, ",", &rest))
		ids[count++] = id;
	if (count > KX_QUERY_NOT_IDS_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "--not: %u ids, at most %u are taken", count,
				    KX_QUERY_NOT_IDS_MAX);
	*ret_count = count;
	return KX_OK;
}

static enum kx_query_group parse_group(const char *text)
{
	if (strcmp(text, "source") == 0)
		return KX_GROUP_SOURCE;
	return strcmp(text, "duplicates") == 0 ? KX_GROUP_DUPLICATES : KX_GROUP_NONE;
}

/* Text points into the configuration. */
static struct kx_similar_query query_of(const struct kx_config *config)
{
	const char *filter = kx_config_text(config, "filter"), *cursor = kx_config_text(config, "cursor");
	double min_score = kx_config_real(config, "min-score");
	return (struct kx_similar_query){
		.video_id = (char *)"",
		.k = (uint32_t)kx_config_int(config, "k"),
		.with_moments = kx_config_flag(config, "moments"),
		.filter = (char *)(uintptr_t)(filter != NULL ? filter : ""),
		.has_min_score = min_score > -1,
		.min_score = min_score,
		.cursor = (char *)(uintptr_t)(cursor != NULL ? cursor : ""),
		.group = parse_group(kx_config_text(config, "group")),
		.diversity = kx_config_real(config, "diversity"),
		.level = strcmp(kx_config_text(config, "level"), "moments") == 0 ? KX_LEVEL_MOMENTS : KX_LEVEL_VIDEOS,
		.recall = kx_config_real(config, "recall"),
		.explain = kx_config_flag(config, "explain"),
	};
}

static kx_status print_reply(const struct kx_config *config, const char *name, const struct kx_query_reply *reply,
			     struct kx_error *error)
{
	struct kx_hits_style style = {.json = kx_config_flag(config, "json"),
				      .with_moments = kx_config_flag(config, "moments"),
				      .explain = kx_config_flag(config, "explain")};
	return kx_hits_print(name, &reply->similar, &style, error);
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

/* Answers one question that the options have made. */
static kx_status ask(const struct kx_config *config, const char *name, struct kx_query_request *request,
		     struct kx_error *error)
{
	KX_CLEANUP(kx_lookup_cleanup) struct kx_lookup *lookup = NULL;
	KX_CLEANUP(kx_query_reply_cleanup) struct kx_query_reply *reply = NULL;
	KX_CLEANUP(kx_cleanup_free) char *id = NULL;
	struct kx_cli_classes classes = {0};
	struct kx_vectors vectors = {0};
	kx_status status = kx_lookup_open(kx_config_text(config, "data"), &lookup, error);
	if (status == KX_OK) {
		kx_lookup_patience(lookup, (int)kx_config_int(config, "timeout"));
		status = kx_lookup_resolve(lookup, name, &id, error);
	}
	if (status == KX_OK && strstr(request->similar.filter, "class") != NULL) {
		kx_cli_classes_open(config, &classes);
		kx_lookup_name_classes(lookup, classes.names, classes.count);
	}
	if (status == KX_OK && id != NULL)
		request->similar.video_id = id;
	else if (status == KX_OK)
		status = add_vectors(config, lookup, name, &request->similar, &vectors, error);
	if (status == KX_OK)
		status = kx_lookup_ask(lookup, request, &reply, error);
	kx_vectors_done(&vectors);
	kx_cli_classes_done(&classes);
	return status == KX_OK ? print_reply(config, name, reply, error) : status;
}

int kx_cmd_similar(const struct kx_config *config)
{
	if (kx_config_argc(config) != 1)
		return kx_usage("similar to what? Name one video: kinodex similar ID|FILE");
	struct kx_error error = {0};
	if (kx_cli_decode(config, &(struct kx_sampling){0}, &error) != KX_OK)
		return kx_usage("%s", error.message);
	struct kx_query_request request = {.kind = KX_QUERY_SIMILAR, .similar = query_of(config)};
	KX_CLEANUP(kx_cleanup_free) char *not_text = NULL;
	KX_CLEANUP(kx_cleanup_free) char **not_ids = NULL;
	const char *leave_out = kx_config_text(config, "not");
	if (parse_weights(kx_config_text(config, "weights"), &request.similar.weight_visual, &request.similar.weight_audio,
			  &error) != KX_OK)
		return kx_usage("%s", error.message);
	if (leave_out != NULL &&
	    parse_ids(leave_out, &not_text, &not_ids, &request.similar.not_id_count, &error) != KX_OK)
		return kx_usage("%s", error.message);
	request.similar.not_ids = not_ids;
	return ask(config, kx_config_arg(config, 0), &request, &error) == KX_OK ? KX_EXIT_DONE : kx_fail(&error);
}
