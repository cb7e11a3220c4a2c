#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/capsule.h"
#include "cli/cli.h"
#include "cli/indexer.h"
#include "cli/json.h"
#include "cli/lookup.h"
#include "common/base/fs.h"
#include "common/base/str.h"
#include "common/fetch/fetch.h"

/* Where its capsule is; NULL where it left none. */
static char *capsule_of(const struct kx_config *config, const struct kx_dead_letter *letter)
{
	char *path = kx_capsule_path(kx_config_text(config, "data"), letter->video_id);
	if (path == NULL || kx_fs_exists(path))
		return path;
	free(path);
	return NULL;
}

static kx_status print_letter_json(const struct kx_config *config, const struct kx_dead_letter *letter,
				   struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *capsule = capsule_of(config, letter);
	KX_CLEANUP(kx_cleanup_free) char *source = kx_json_source(letter->source);
	return kx_json_print(json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:s, s:s, s:s?}", "id", letter->video_id, "source",
				       source, "reason", kx_reason_name(letter->reason), "message", letter->message,
				       "cure", kx_reason_help(letter->reason), "attempts",
				       (json_int_t)letter->attempts, "at_ms", (json_int_t)letter->at_ms, "run",
				       letter->run_id, "software", letter->software, "capsule", capsule),
			     error);
}

static kx_status list_letter(void *ctx, const struct kx_dead_letter *letter, struct kx_error *error)
{
	const struct kx_config *config = ctx;
	if (kx_config_flag(config, "json"))
		return print_letter_json(config, letter, error);
	printf("%-17s %-40s %s\n", kx_reason_name(letter->reason), letter->video_id, letter->message);
	return KX_OK;
}

static int dead_list(const struct kx_config *config)
{
	struct kx_error error = {0};
	KX_CLEANUP(kx_lookup_cleanup) struct kx_lookup *lookup = NULL;
	struct kx_ledger *ledger;
	kx_status status = kx_lookup_open(kx_config_text(config, "data"), &lookup, &error);
	if (status == KX_OK)
		status = kx_lookup_ledger(lookup, &ledger, &error);
	if (status == KX_OK)
		status = kx_ledger_each_dead(ledger, list_letter, (void *)(uintptr_t)config, &error);
	return status == KX_OK ? KX_EXIT_DONE : kx_fail(&error);
}

static void print_letter(const struct kx_config *config, const struct kx_dead_letter *letter)
{
	KX_CLEANUP(kx_cleanup_free) char *capsule = capsule_of(config, letter);
	KX_CLEANUP(kx_cleanup_free) char *source = kx_fetch_name(letter->source);
	char when[32] = "";
	time_t at = (time_t)(letter->at_ms / 1000);
	struct tm local;
	if (localtime_r(&at, &local) != NULL)
		strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &local);
	printf("id        %s\nsource    %s\nreason    %s\nmessage   %s\ncure      %s\nattempts  %" PRIu32
	       "\nwhen      %s\nrun       %s\nsoftware  %s\n",
	       letter->video_id, source != NULL ? source : "", kx_reason_name(letter->reason), letter->message,
	       kx_reason_help(letter->reason), letter->attempts, when, letter->run_id, letter->software);
	if (capsule != NULL)
		printf("capsule   %s\n", capsule);
}

static int dead_show(const struct kx_config *config)
{
	if (kx_config_argc(config) != 2)
		return kx_usage("dead show which? kinodex dead show ID");
	const char *id = kx_config_arg(config, 1);
	struct kx_error error = {0};
	KX_CLEANUP(kx_lookup_cleanup) struct kx_lookup *lookup = NULL;
	KX_CLEANUP(kx_dead_letter_cleanup) struct kx_dead_letter *letter = NULL;
	struct kx_ledger *ledger;
	kx_status status = kx_lookup_open(kx_config_text(config, "data"), &lookup, &error);
	if (status == KX_OK)
		status = kx_lookup_ledger(lookup, &ledger, &error);
	if (status == KX_OK)
		status = kx_ledger_get_dead(ledger, id, &letter, &error);
	if (status == KX_ENOTFOUND && error.message[0] == '\0')
		kx_error_set(&error, KX_ENOTFOUND, KX_ERROR_POISON,
			     "no dead letter has the id %s: kinodex dead list lists them", id);
	if (status == KX_OK && kx_config_flag(config, "json"))
		status = print_letter_json(config, letter, &error);
	else if (status == KX_OK)
		print_letter(config, letter);
	return status == KX_OK ? KX_EXIT_DONE : kx_fail(&error);
}

struct id_list {
	char **ids;
	size_t count;
};

static kx_status add_id(void *ctx, const struct kx_dead_letter *letter, struct kx_error *error)
{
	struct id_list *list = ctx;
	char **grown = realloc(list->ids, (list->count + 1) * sizeof(char *));
	if (grown == NULL)
		return kx_error_nomem(error);
	list->ids = grown;
	if ((grown[list->count] = kx_strdup(letter->video_id)) == NULL)
		return kx_error_nomem(error);
	list->count++;
	return KX_OK;
}

static void free_ids(struct id_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->ids[i]);
	free(list->ids);
}

/* The ids to replay: those named, each of which must have a letter, or all. */
static kx_status choose_ids(const struct kx_config *config, struct id_list *list, struct kx_error *error)
{
	KX_CLEANUP(kx_lookup_cleanup) struct kx_lookup *lookup = NULL;
	struct kx_ledger *ledger;
	kx_status status = kx_lookup_open(kx_config_text(config, "data"), &lookup, error);
	if (status == KX_OK)
		status = kx_lookup_ledger(lookup, &ledger, error);
	if (status == KX_OK && kx_config_flag(config, "all"))
		return kx_ledger_each_dead(ledger, add_id, list, error);
	for (size_t i = 1; status == KX_OK && i < kx_config_argc(config); i++) {
		struct kx_dead_letter *letter = NULL;
		status = kx_ledger_get_dead(ledger, kx_config_arg(config, i), &letter, error);
		if (status == KX_ENOTFOUND)
			return kx_error_set(error, KX_ENOTFOUND, KX_ERROR_POISON,
					    "no dead letter has the id %s: kinodex dead list lists them",
					    kx_config_arg(config, i));
		if (status == KX_OK)
			status = add_id(list, letter, error);
		kx_dead_letter_free(letter);
	}
	return status;
}

static int dead_replay(const struct kx_config *config)
{
	if (kx_config_argc(config) < 2 && !kx_config_flag(config, "all"))
		return kx_usage("dead replay which? kinodex dead replay ID... or --all");
	struct id_list list = {0};
	struct kx_index_report report = {0};
	struct kx_error error = {0};
	kx_status status = choose_ids(config, &list, &error);
	if (status == KX_OK && list.count == 0) {
		fprintf(stderr, "there are no dead letters\n");
		return KX_EXIT_DONE;
	}
	struct kx_index_request request = {.replay_ids = (const char *const *)list.ids, .replay_count = list.count};
	if (status == KX_OK)
		status = kx_index_run(config, &request, &report, &error);
	free_ids(&list);
	if (status != KX_OK && status != KX_ECANCELED)
		return kx_fail(&error);
	return kx_index_print(config, &report, status == KX_ECANCELED);
}

int kx_cmd_dead(const struct kx_config *config)
{
	const char *verb = kx_config_argc(config) > 0 ? kx_config_arg(config, 0) : "";
	if (strcmp(verb, "list") == 0)
		return dead_list(config);
	if (strcmp(verb, "show") == 0)
		return dead_show(config);
	if (strcmp(verb, "replay") == 0)
		return dead_replay(config);
	return kx_usage("kinodex dead list, dead show ID, or dead replay ID...|--all");
}
