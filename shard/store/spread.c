#include "shard/store/spread.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "shard/store/internal.h"

#define LOOK_EVERY 1024u
#define UNFINISHED 0u /* a format that no program reads */

static const char format_key[] = "format", part_prefix[] = "part/", offset_prefix[] = "offset/",
		  deleted_prefix[] = "deleted/", local_prefix[] = "offset/local-";

static const enum kx_store_family keyed_by_id[] = {KX_STORE_PENDING, KX_STORE_VIDEOS, KX_STORE_MOMENTS, KX_STORE_FEATURES,
						   KX_STORE_OUTBOX};

struct spreading {
	const struct kx_spread *spread;
	struct kx_store *const *to;
	struct kx_spread_counts *each;
	struct kx_store_part *from_parts; /* [from_count] */
	uint32_t partitions;
	uint64_t seen;
};

/* --- The division --------------------------------------------------------------------------------------------- */

static kx_status check_source(const struct kx_store_part *from, const char *const *names, size_t i, uint32_t *partitions,
			      struct kx_error *error)
{
	const struct kx_store_part *part = &from[i];

	if (part->parts != from[0].parts)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
				    "%s is part %" PRIu32 " of %" PRIu32 ", and %s part %" PRIu32 " of %" PRIu32
				    ": they are not of one catalogue",
				    names[i], part->part, part->parts, names[0], from[0].part, from[0].parts);
	for (size_t j = 0; j < i; j++)
		if (from[j].part == part->part)
			return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
					    "%s and %s both are part %" PRIu32 " of %" PRIu32 ". Name one of them", names[j],
					    names[i], part->part, part->parts);
	if (part->parts == 1)
		return KX_OK;
	if (!*partitions)
		*partitions = part->partitions;
	if (part->partitions != *partitions)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
				    "%s is of a results topic of %" PRIu32 " partitions, not of %" PRIu32, names[i],
				    part->partitions, *partitions);
	return KX_OK;
}

static kx_status say_missing(const struct kx_store_part *from, size_t count, struct kx_error *error)
{
	for (uint32_t part = 0; part < from[0].parts; part++) {
		bool found = false;

		for (size_t i = 0; i < count; i++)
			found |= from[i].part == part;
		if (!found)
			return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
					    "part %" PRIu32 " of %" PRIu32 " is missing. Name the stores of all parts", part,
					    from[0].parts);
	}
	return KX_OK;
}

kx_status kx_spread_check(const struct kx_store_part *from, const char *const *names, size_t count, uint32_t parts,
			  uint32_t *partitions, struct kx_error *error)
{
	kx_status status = count ? KX_OK : kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "no store to spread is named");

	for (size_t i = 0; !status && i < count; i++)
		status = check_source(from, names, i, partitions, error);
	if (!status)
		status = say_missing(from, count, error);
	if (status)
		return status;
	if (!*partitions)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
				    "%s holds a whole catalogue: how many partitions the results topic has decides what goes where",
				    names[0]);
	if (!parts || parts > *partitions)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
				    "%" PRIu32 " shards can't share the %" PRIu32 " partitions of the results topic", parts,
				    *partitions);
	return KX_OK;
}

/* --- Where a record goes -------------------------------------------------------------------------------------- */

static kx_status check_partition(const struct spreading *run, size_t source, uint32_t partition, const char *what, size_t len,
				 struct kx_error *error)
{
	const struct kx_store_part *part = &run->from_parts[source];

	if (partition % part->parts == part->part)
		return KX_OK;
	return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL,
			    "%s holds %.*s, which belongs to part %" PRIu32 " of %" PRIu32 ": nothing is spread",
			    run->spread->names[source], (int)len, what, partition % part->parts, part->parts);
}

static kx_status route_id(const struct spreading *run, size_t source, const char *id, size_t len, uint32_t *ret,
			  struct kx_error *error)
{
	uint32_t partition = (uint32_t)run->spread->partition_of(id, len, (int)run->partitions);

	*ret = partition % run->spread->parts;
	return check_partition(run, source, partition, id, len, error);
}

/* "offset/BUS/TOPIC/PARTITION" */
static kx_status route_offset(const struct spreading *run, size_t source, const char *key, size_t len, uint32_t *ret,
			      struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *text = kx_strndup(key, len);
	uint64_t partition;

	if (!text)
		return kx_error_nomem(error);
	if (kx_parse_u64(strrchr(text, '/') + 1, &partition))
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "%s: \"%s\" is no offset", run->spread->names[source],
				    text);
	if (partition >= run->partitions)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
				    "%s has read partition %" PRIu64 " of a results topic, which then has more than %" PRIu32
				    " of them: say how many with --partitions",
				    run->spread->names[source], partition, run->partitions);
	*ret = (uint32_t)partition % run->spread->parts;
	return check_partition(run, source, (uint32_t)partition, key, len, error);
}

static bool starts(const char *key, size_t len, const char *prefix)
{
	return len >= strlen(prefix) && memcmp(key, prefix, strlen(prefix)) == 0;
}

static bool is(const char *key, size_t len, const char *text)
{
	return len == strlen(text) && memcmp(key, text, len) == 0;
}

/* What is said anew, means nothing in another store, or nothing any more. */
static bool is_left_out(const char *key, size_t len)
{
	return is(key, len, format_key) || is(key, len, kx_store_totals_key) || is(key, len, kx_store_snapshot_key) ||
	       starts(key, len, kx_store_changed_prefix) || starts(key, len, part_prefix) || starts(key, len, local_prefix);
}

static kx_status route_meta(const struct spreading *run, size_t source, const char *key, size_t len, uint32_t *ret,
			    struct kx_error *error)
{
	const size_t skip = strlen(deleted_prefix);

	if (starts(key, len, deleted_prefix))
		return route_id(run, source, key + skip, len - skip, ret, error);
	if (starts(key, len, offset_prefix))
		return route_offset(run, source, key, len, ret, error);
	return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "%s: \"%.*s\" is nothing that this program knows of a store",
			    run->spread->names[source], (int)len, key);
}

/* --- Copying -------------------------------------------------------------------------------------------------- */

static void count(struct kx_spread_counts *counts, enum kx_store_family family, const char *key, size_t len)
{
	uint64_t *const of[KX_STORE_FAMILIES] = {
		[KX_STORE_PENDING] = &counts->pending,
		[KX_STORE_VIDEOS] = &counts->videos,
		[KX_STORE_FEATURES] = &counts->moments,
		[KX_STORE_OUTBOX] = &counts->events,
	};

	if (family == KX_STORE_META && starts(key, len, deleted_prefix))
		counts->deletions++;
	else if (family == KX_STORE_META && starts(key, len, offset_prefix))
		counts->offsets++;
	else if (of[family])
		(*of[family])++;
}

static kx_status look(struct spreading *run, struct kx_error *error)
{
	const struct kx_spread *spread = run->spread;

	if (run->seen++ % LOOK_EVERY || !spread->goes_on || spread->goes_on(spread->ctx))
		return KX_OK;
	return kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY, "stopped; nothing was made");
}

static kx_status put(struct spreading *run, enum kx_store_family family, struct kx_kv_bulk **bulk, uint32_t to,
		     const struct kx_kv_iter *iter, struct kx_error *error)
{
	size_t key_len, len;
	const void *key = kx_kv_iter_key(iter, &key_len), *value = kx_kv_iter_value(iter, &len);
	kx_status status = KX_OK;

	if (!*bulk)
		status = kx_kv_bulk_new(run->to[to]->kv, family, bulk, error);
	if (!status)
		status = kx_kv_bulk_put(*bulk, key, key_len, value, len, error);
	if (!status)
		count(&run->each[to], family, key, key_len);
	return status;
}

/* Of one source. The keys of a family rise, and so do those of each part. */
static kx_status copy_keys(struct spreading *run, size_t source, enum kx_store_family family, struct kx_kv_bulk **bulks,
			   struct kx_error *error)
{
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;

	if (kx_kv_iter_new(run->spread->from[source]->kv, family, NULL, 0, &iter))
		return kx_error_nomem(error);
	for (; kx_kv_iter_valid(iter); kx_kv_iter_next(iter)) {
		size_t len;
		const char *key = kx_kv_iter_key(iter, &len);
		const char *end = memchr(key, 0, len);
		uint32_t to = 0;
		kx_status status = look(run, error);

		if (!status && family == KX_STORE_META && is_left_out(key, len))
			continue;
		if (!status && family == KX_STORE_META)
			status = route_meta(run, source, key, len, &to, error);
		else if (!status)
			status = route_id(run, source, key, end ? (size_t)(end - key) : len, &to, error);
		if (!status)
			status = put(run, family, &bulks[to], to, iter, error);
		if (status)
			return status;
	}
	return kx_kv_iter_error(iter, error);
}

static kx_status copy_family(struct spreading *run, size_t source, enum kx_store_family family, struct kx_error *error)
{
	struct kx_kv_bulk **bulks = calloc(run->spread->parts, sizeof(struct kx_kv_bulk *));
	kx_status status = bulks ? copy_keys(run, source, family, bulks, error) : kx_error_nomem(error);

	for (uint32_t i = 0; bulks && i < run->spread->parts; i++) {
		if (!status && bulks[i])
			status = kx_kv_bulk_finish(bulks[i], error);
		kx_kv_bulk_free(bulks[i]);
	}
	free(bulks);
	return status;
}

/* --- Proof ---------------------------------------------------------------------------------------------------- */

static kx_status recount(struct kx_store *store, enum kx_store_family family, struct kx_spread_counts *counts,
			 uint64_t *summaries, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_iter_cleanup) struct kx_kv_iter *iter = NULL;

	if (kx_kv_iter_new(store->kv, family, NULL, 0, &iter))
		return kx_error_nomem(error);
	for (; kx_kv_iter_valid(iter); kx_kv_iter_next(iter)) {
		size_t len;
		const char *key = kx_kv_iter_key(iter, &len);

		count(counts, family, key, len);
		*summaries += family == KX_STORE_MOMENTS;
	}
	return kx_kv_iter_error(iter, error);
}

/* That it holds what it was given, and that this is sound: the audit reads every record of videos and of what arrives. */
static kx_status prove(struct kx_store *store, const struct kx_spread_counts *given, struct kx_error *error)
{
	struct kx_spread_counts found = {0};
	struct kx_store_audit audit;
	uint64_t summaries = 0;
	kx_status status = kx_kv_flush(store->kv, error); /* what is still in memory is proved on disk */

	for (int family = 0; !status && family < KX_STORE_FAMILIES; family++)
		status = recount(store, (enum kx_store_family)family, &found, &summaries, error);
	if (status)
		return status;
	if (memcmp(&found, given, sizeof(found)) != 0 || summaries != given->moments)
		return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL,
				    "a store was given %" PRIu64 " videos and %" PRIu64 " moments, and holds %" PRIu64 " and %" PRIu64,
				    given->videos, given->moments, found.videos, found.moments);
	status = kx_store_audit(store, &audit, error);
	return status ? kx_error_prefix(error, status, "nothing is spread, the stores that were named are damaged: ") : KX_OK;
}

/* --- All of it ------------------------------------------------------------------------------------------------ */

static kx_status set_format(struct kx_store *store, uint64_t format, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_batch_cleanup) struct kx_kv_batch *batch = NULL;
	uint8_t value[8];

	if (kx_kv_batch_new(store->kv, &batch))
		return kx_error_nomem(error);
	kx_be64_put(value, format);
	kx_kv_batch_put(batch, KX_STORE_META, format_key, strlen(format_key), value, sizeof(value));
	return kx_kv_write(store->kv, batch, true, error);
}

static kx_status begin(struct spreading *run, struct kx_error *error)
{
	const struct kx_spread *spread = run->spread;
	kx_status status = KX_OK;

	for (size_t i = 0; !status && i < spread->from_count; i++)
		status = kx_store_part(spread->from[i], &run->from_parts[i], error);
	if (!status)
		status = kx_spread_check(run->from_parts, spread->names, spread->from_count, spread->parts, &run->partitions,
					 error);
	for (uint32_t i = 0; !status && i < spread->parts; i++)
		status = set_format(run->to[i], UNFINISHED, error);
	for (uint32_t i = 0; !status && i < spread->parts; i++)
		status = kx_store_claim(run->to[i], &(struct kx_store_part){i, spread->parts, run->partitions}, error);
	return status;
}

static kx_status copy_all(struct spreading *run, struct kx_error *error)
{
	kx_status status = KX_OK;

	for (size_t source = 0; !status && source < run->spread->from_count; source++) {
		status = copy_family(run, source, KX_STORE_META, error);
		for (size_t i = 0; !status && i < KX_ARRAY_LEN(keyed_by_id); i++)
			status = copy_family(run, source, keyed_by_id[i], error);
	}
	return status;
}

static kx_status finish(struct spreading *run, struct kx_spread_counts *ret, struct kx_error *error)
{
	kx_status status = KX_OK;

	for (uint32_t i = 0; !status && i < run->spread->parts; i++)
		status = prove(run->to[i], &run->each[i], error);
	for (uint32_t i = 0; !status && i < run->spread->parts; i++)
		status = set_format(run->to[i], KX_STORE_FORMAT, error);
	for (uint32_t i = 0; !status && i < run->spread->parts; i++) {
		const struct kx_spread_counts *part = &run->each[i];

		ret->videos += part->videos;
		ret->moments += part->moments;
		ret->pending += part->pending;
		ret->events += part->events;
		ret->deletions += part->deletions;
		ret->offsets += part->offsets;
	}
	return status;
}

kx_status kx_spread_stores(const struct kx_spread *spread, struct kx_store *const *to, struct kx_spread_counts *each,
			   struct kx_spread_counts *ret, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) struct kx_store_part *parts = calloc(spread->from_count + 1, sizeof(*parts));
	struct spreading run = {
		.spread = spread, .to = to, .each = each, .from_parts = parts, .partitions = spread->partitions};
	kx_status status = parts ? KX_OK : kx_error_nomem(error);

	memset(each, 0, spread->parts * sizeof(*each));
	*ret = (struct kx_spread_counts){0};
	if (!status)
		status = begin(&run, error);
	if (!status)
		status = copy_all(&run, error);
	return status ? status : finish(&run, ret, error);
}
