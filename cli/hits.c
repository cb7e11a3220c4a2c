#include "cli/hits.h"

#include <inttypes.h>
#include <string.h>

#include "cli/json.h"
#include "cli/time.h"
#include "common/base/str.h"

static json_t *match_json(const struct kx_moment_match *match)
{
	return json_pack("{s:f, s:f, s:f, s:f, s:f}", "ours_s", (double)match->ours_us / 1e6, "theirs_s",
			 (double)match->theirs_us / 1e6, "score", match->score, "visual", match->visual, "audio",
			 match->audio);
}

static json_t *matches_json(const struct kx_similar_hit *hit)
{
	json_t *matches = json_array();
	for (uint32_t i = 0; i < hit->match_count; i++)
		json_array_append_new(matches, match_json(&hit->matches[i]));
	return matches;
}

static json_t *clauses_json(const struct kx_similar_hit *hit)
{
	json_t *clauses = json_array();
	for (uint32_t i = 0; i < hit->clause_count; i++)
		json_array_append_new(clauses, json_pack("{s:s, s:b, s:s}", "clause", hit->clauses[i].clause, "passed",
							 hit->clauses[i].passed, "value", hit->clauses[i].value));
	return clauses;
}

static json_t *hit_json(const struct kx_similar_hit *hit, const struct kx_hits_style *style)
{
	KX_CLEANUP(kx_cleanup_free) char *source = kx_json_source(hit->source);
	json_t *labels = json_array();
	for (uint32_t i = 0; i < hit->label_count; i++)
		json_array_append_new(labels, json_string(hit->labels[i]));
	json_t *out = json_pack("{s:s%, s:s%, s:f, s:f, s:f, s:b, s:b, s:f, s:s, s:o}", "id", hit->video_id,
				strlen(hit->video_id), "title", hit->title, strlen(hit->title), "score", hit->score,
				"visual", hit->visual, "audio", hit->audio, "has_visual", hit->has_visual, "has_audio",
				hit->has_audio, "duration_s", (double)hit->duration_us / 1e6, "source", source, "labels",
				labels);
	if (out == NULL)
		return NULL;
	if (hit->group_key[0] != '\0')
		json_object_set_new(out, "group", json_string(hit->group_key));
	if (hit->has_moment)
		json_object_set_new(out, "moment", json_pack("{s:f, s:f}", "from_s", (double)hit->moment_start_us / 1e6,
							     "to_s", (double)hit->moment_end_us / 1e6));
	if (style->with_moments)
		json_object_set_new(out, "moments", matches_json(hit));
	if (style->explain)
		json_object_set_new(out, "clauses", clauses_json(hit));
	return out;
}

static json_t *work_json(const struct kx_search_work *work)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:f}", "rows", (json_int_t)work->rows, "matching",
			 (json_int_t)work->matching, "cells", (json_int_t)work->cells, "codes", (json_int_t)work->codes,
			 "refined", (json_int_t)work->refined, "took_ms", (double)work->took_us / 1e3);
}

static kx_status print_json(const char *name, const struct kx_similar_answer *answer, const struct kx_hits_style *style,
			    struct kx_error *error)
{
	json_t *hits = json_array();
	for (uint32_t i = 0; i < answer->hit_count; i++)
		json_array_append_new(hits, hit_json(&answer->hits[i], style));
	json_t *out = json_pack("{s:s, s:o, s:s, s:b, s:f, s:b}", "query", name, "hits", hits, "next",
				answer->next != NULL ? answer->next : "", "exact", answer->exact, "recall", answer->recall,
				"changed", answer->changed);
	/* Times differ from call to call: the same question has the same answer unless they are asked for. */
	if (out != NULL && style->explain)
		json_object_set_new(out, "work", work_json(&answer->work));
	return kx_json_print(out, error);
}

static void print_clauses(const struct kx_similar_hit *hit)
{
	for (uint32_t i = 0; i < hit->clause_count; i++)
		printf("          %s %s (%s)\n", hit->clauses[i].passed ? "+" : "-", hit->clauses[i].clause,
		       hit->clauses[i].value[0] != '\0' ? hit->clauses[i].value : "none");
}

static void print_hit(const struct kx_similar_hit *hit)
{
	printf("%6.3f  %-40s", hit->score, hit->video_id);
	if (hit->has_moment) {
		fputs("  ", stdout);
		kx_print_time(hit->moment_start_us);
		putchar('-');
		kx_print_time(hit->moment_end_us);
	}
	printf("  picture %s", hit->has_visual ? "" : "-");
	if (hit->has_visual)
		printf("%.3f", hit->visual);
	printf("  sound %s", hit->has_audio ? "" : "-");
	if (hit->has_audio)
		printf("%.3f", hit->audio);
	printf("%s%s\n", hit->title[0] != '\0' ? "  " : "", hit->title);
	for (uint32_t i = 0; i < hit->match_count; i++) {
		printf("          %.3f  ours ", hit->matches[i].score);
		kx_print_time(hit->matches[i].ours_us);
		printf("  theirs ");
		kx_print_time(hit->matches[i].theirs_us);
		putchar('\n');
	}
	print_clauses(hit);
}

static void print_work(const struct kx_similar_answer *answer)
{
	printf("%s%s: %" PRIu64 " compared, %" PRIu64 " pass the filter, %.1f ms\n", answer->exact ? "exact" : "approximate",
	       answer->changed ? ", the store changed since the page before" : "", answer->work.refined, answer->work.matching,
	       (double)answer->work.took_us / 1e3);
}

kx_status kx_hits_print(const char *name, const struct kx_similar_answer *answer, const struct kx_hits_style *style,
			struct kx_error *error)
{
	if (style->json)
		return print_json(name, answer, style, error);
	printf(" score  video\n");
	for (uint32_t i = 0; i < answer->hit_count; i++)
		print_hit(&answer->hits[i]);
	if (answer->hit_count == 0)
		printf("no other video that may be shown shares picture or sound with it\n");
	if (style->explain)
		print_work(answer);
	if (answer->next != NULL && answer->next[0] != '\0' && style->explain)
		printf("next: %s\n", answer->next);
	return KX_OK;
}
