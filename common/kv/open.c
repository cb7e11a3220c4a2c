#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/fault.h"
#include "common/base/fs.h"
#include "common/base/str.h"
#include "common/kv/internal.h"

#define CACHE_SHARD_BITS 2
#define DEFAULT_WRITE_BUFFER_BYTES ((size_t)32 << 20)
#define DEFAULT_CACHE_BYTES ((size_t)32 << 20)
#define MIN_WRITE_BUFFER_BYTES ((size_t)64 << 10)
#define FAMILIES_MAX 64
#define READER_ATTEMPTS 100

enum { INFO_LOG_HEADERS_ONLY = 5 }; /* rocksdb::InfoLogLevel::HEADER_LEVEL, which c.h doesn't name */

/* What one attempt to open needs, all of it gone afterwards. */
struct plan {
	const char *path;
	const struct kx_kv_options *options;
	bool create;
	rocksdb_options_t *plain;
	rocksdb_options_t *zstd;
	char **on_disk; /* names of the families that are there */
	size_t on_disk_count;
	const char *names[FAMILIES_MAX];
	const rocksdb_options_t *family_options[FAMILIES_MAX];
	rocksdb_column_family_handle_t *handles[FAMILIES_MAX];
	size_t count;
};

/* Which state of the store its folder shows: the name and the length of the manifest change with every flush and
 * compaction. */
struct mark {
	char manifest[64];
	off_t len;
};

static void plan_done(struct plan *plan)
{
	if (plan->on_disk)
		rocksdb_list_column_families_destroy(plan->on_disk, plan->on_disk_count);
	if (plan->plain)
		rocksdb_options_destroy(plan->plain);
	if (plan->zstd)
		rocksdb_options_destroy(plan->zstd);
	*plan = (struct plan){0};
}

static void set_table_options(rocksdb_options_t *rocks, rocksdb_cache_t *cache)
{
	rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();

	rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom_full(10));
	/* In parts of some KiB: whole, the filter of a file of small values has megabytes, and where the cache can't hold it,
	 * each look-up reads it anew. */
	rocksdb_block_based_options_set_index_type(table, rocksdb_block_based_table_index_type_two_level_index_search);
	rocksdb_block_based_options_set_partition_filters(table, 1);
	if (cache) {
		/* Indices and filters count against the cache too, or memory would grow with the store. */
		rocksdb_block_based_options_set_block_cache(table, cache);
		rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1);
		rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(table, 1);
		rocksdb_block_based_options_set_pin_top_level_index_and_filter(table, 1);
	} else {
		rocksdb_block_based_options_set_no_block_cache(table, 1);
	}
	rocksdb_options_set_block_based_table_factory(rocks, table);
	rocksdb_block_based_options_destroy(table);
}

static rocksdb_options_t *make_options(const struct plan *plan, rocksdb_cache_t *cache, int compression)
{
	const struct kx_kv_options *options = plan->options;
	rocksdb_options_t *rocks = rocksdb_options_create();
	size_t buffer = options->write_buffer_bytes ? options->write_buffer_bytes : DEFAULT_WRITE_BUFFER_BYTES;

	if (buffer < MIN_WRITE_BUFFER_BYTES)
		buffer = MIN_WRITE_BUFFER_BYTES;
	rocksdb_options_set_create_if_missing(rocks, plan->create);
	rocksdb_options_set_create_missing_column_families(rocks, plan->create);
	rocksdb_options_set_compression(rocks, compression);
	set_table_options(rocks, cache);

	/* One bound for all families together. The WAL's bound is also the time a restart takes to replay it. */
	rocksdb_options_set_db_write_buffer_size(rocks, buffer);
	rocksdb_options_set_write_buffer_size(rocks, buffer);
	rocksdb_options_set_arena_block_size(rocks, buffer / 128);
	/* A torn tail is a crash; anything else that does not read back is rot, and must be said, where RocksDB's default
	 * would quietly stop there and drop what was acknowledged after it. */
	rocksdb_options_set_wal_recovery_mode(rocks, rocksdb_tolerate_corrupted_tail_records_recovery);
	rocksdb_options_set_max_total_wal_size(rocks, 4 * (uint64_t)buffer);
	rocksdb_options_set_level_compaction_dynamic_level_bytes(rocks, 1);
	rocksdb_options_set_max_background_jobs(rocks, 2);
	rocksdb_options_set_bytes_per_sync(rocks, 1 << 20);

	/* Counts for choosing what to compact, which would open tables to be read: a pause at each opening. */
	rocksdb_options_set_skip_stats_update_on_db_open(rocks, 1);

	/* A reader keeps every file open: the writer may delete them under it, and the descriptor still reads. */
	rocksdb_options_set_max_open_files(rocks, options->read_only ? -1 : 256);
	/* RocksDB's own log says nothing that its status texts don't, and a full disk would have it write there that
	 * the disk is full: the second failure of a file is an assertion in Debian's build, and the process gone. */
	rocksdb_options_set_info_log_level(rocks, INFO_LOG_HEADERS_ONLY);
	rocksdb_options_set_keep_log_file_num(rocks, 1);
	rocksdb_options_set_max_manifest_file_size(rocks, 8 << 20);
	rocksdb_options_set_manifest_preallocation_size(rocks, 64 << 10);
	rocksdb_options_set_stats_dump_period_sec(rocks, 0);
	rocksdb_options_set_stats_persist_period_sec(rocks, 0);
	return rocks;
}

rocksdb_options_t *kx_kv_table_options(bool compress)
{
	rocksdb_options_t *rocks = rocksdb_options_create();

	rocksdb_options_set_compression(rocks, compress ? rocksdb_zstd_compression : rocksdb_no_compression);
	set_table_options(rocks, NULL);
	return rocks;
}

/* In few shards: what is larger than one is never kept, and by default they have half a MiB. */
static rocksdb_cache_t *make_cache(size_t bytes)
{
	rocksdb_lru_cache_options_t *options = rocksdb_lru_cache_options_create();
	rocksdb_cache_t *cache;

	rocksdb_lru_cache_options_set_capacity(options, bytes);
	rocksdb_lru_cache_options_set_num_shard_bits(options, CACHE_SHARD_BITS);
	cache = rocksdb_cache_create_lru_opts(options);
	rocksdb_lru_cache_options_destroy(options);
	return cache;
}

static void plan_options(struct plan *plan, bool cached)
{
	size_t bytes = plan->options->cache_bytes ? plan->options->cache_bytes : DEFAULT_CACHE_BYTES;
	rocksdb_cache_t *cache = cached ? make_cache(bytes) : NULL;

	plan->plain = make_options(plan, cache, rocksdb_no_compression);
	plan->zstd = make_options(plan, cache, rocksdb_zstd_compression);
	if (cache)
		rocksdb_cache_destroy(cache); /* the options hold it now, and then the store */
}

static bool is_named(const struct plan *plan, const char *name)
{
	for (size_t i = 0; i < plan->count; i++)
		if (kx_str_eq(plan->names[i], name))
			return true;
	return false;
}

static bool is_on_disk(const struct plan *plan, const char *name)
{
	for (size_t i = 0; i < plan->on_disk_count; i++)
		if (kx_str_eq(plan->on_disk[i], name))
			return true;
	return false;
}

static void plan_add(struct plan *plan, const char *name, bool compress)
{
	plan->names[plan->count] = name;
	plan->family_options[plan->count] = compress ? plan->zstd : plan->plain;
	plan->count++;
}

static void destroy_handles(rocksdb_column_family_handle_t **handles, size_t count)
{
	/* Debian's RocksDB is built with assertions: it aborts when a family or an iterator outlives the store. */
	for (size_t i = 0; i < count; i++)
		rocksdb_column_family_handle_destroy(handles[i]);
}

static bool is_family_empty(rocksdb_t *db, rocksdb_readoptions_t *read, rocksdb_column_family_handle_t *family)
{
	rocksdb_iterator_t *iter = rocksdb_create_iterator_cf(db, read, family);
	char *text = NULL;
	bool empty;

	rocksdb_iter_seek_to_first(iter);
	empty = !rocksdb_iter_valid(iter);
	rocksdb_iter_get_error(iter, &text);
	rocksdb_iter_destroy(iter);
	empty = empty && !text;
	free(text);
	return empty;
}

/* RocksDB makes the families of a new store one after another: it can be looked at, or its maker may die, when some
 * are there. Nothing was written to it then, which tells it from a store of another version. */
static bool is_unfinished(const struct plan *plan)
{
	const rocksdb_options_t *options[FAMILIES_MAX];
	rocksdb_column_family_handle_t *handles[FAMILIES_MAX];
	rocksdb_readoptions_t *read;
	rocksdb_t *db;
	char *text = NULL;
	bool empty = true;

	for (size_t i = 0; i < plan->on_disk_count; i++)
		options[i] = plan->plain;
	db = rocksdb_open_for_read_only_column_families(plan->plain, plan->path, (int)plan->on_disk_count,
							(const char *const *)plan->on_disk, options, handles, 0, &text);
	free(text);
	if (!db)
		return false;
	read = rocksdb_readoptions_create();
	for (size_t i = 0; i < plan->on_disk_count; i++)
		empty = empty && is_family_empty(db, read, handles[i]);
	rocksdb_readoptions_destroy(read);
	destroy_handles(handles, plan->on_disk_count);
	rocksdb_close(db);
	return empty;
}

static kx_status fail_missing(const struct plan *plan, const char *name, struct kx_error *error)
{
	if (is_unfinished(plan))
		return kx_error_set(error, KX_ENOTFOUND, KX_ERROR_FATAL, "store %s: nothing is in it yet", plan->path);
	return kx_error_set(error, KX_EVERSION, KX_ERROR_FATAL,
			    "store %s: it has no family \"%s\", so another version wrote it", plan->path, name);
}

/* The caller's families, then all others that are on disk. */
static kx_status plan_families(struct plan *plan, struct kx_error *error)
{
	const struct kx_kv_options *options = plan->options;

	if (options->family_count + plan->on_disk_count + 1 > FAMILIES_MAX)
		return kx_error_set(error, KX_ETOOBIG, KX_ERROR_FATAL, "store %s: more than %d families", plan->path,
				    FAMILIES_MAX);
	for (size_t i = 0; i < options->family_count; i++) {
		const struct kx_kv_family *family = &options->families[i];

		if (!plan->create && !is_on_disk(plan, family->name))
			return fail_missing(plan, family->name, error);
		plan_add(plan, family->name, family->compress);
	}
	for (size_t i = 0; i < plan->on_disk_count; i++)
		if (!is_named(plan, plan->on_disk[i]))
			plan_add(plan, plan->on_disk[i], true);
	if (!is_named(plan, "default"))
		plan_add(plan, "default", false);
	return KX_OK;
}

static rocksdb_t *open_db(struct plan *plan, char **ret_text)
{
	if (plan->options->read_only)
		return rocksdb_open_for_read_only_column_families(plan->plain, plan->path, (int)plan->count, plan->names,
								  plan->family_options, plan->handles, 0, ret_text);
	return rocksdb_open_column_families(plan->plain, plan->path, (int)plan->count, plan->names,
					    plan->family_options, plan->handles, ret_text);
}

static kx_status open_families(struct kx_kv *kv, struct plan *plan, bool exists, struct kx_error *error)
{
	char *text = NULL;

	if (exists)
		plan->on_disk = rocksdb_list_column_families(plan->plain, plan->path, &plan->on_disk_count, &text);
	if (!text) {
		kx_status status = plan_families(plan, error);

		if (status)
			return status;
		kv->db = open_db(plan, &text);
	}
	if (text)
		return kx_kv_fail(plan->path, text, error);
	kv->opened_count = plan->count;
	kv->family_count = plan->options->family_count;
	for (size_t i = 0; i < kv->family_count; i++)
		kv->compress[i] = plan->options->families[i].compress;
	memcpy(kv->families, plan->handles, plan->count * sizeof(plan->handles[0]));
	return KX_OK;
}

static kx_status connect_db(struct kx_kv *kv, const struct kx_kv_options *options, bool exists, bool cached,
			    struct kx_error *error)
{
	struct plan plan = {.path = kv->path, .options = options, .create = options->create && !kv->read_only};
	kx_status status;

	plan_options(&plan, cached);
	status = open_families(kv, &plan, exists, error);
	plan_done(&plan);
	return status;
}

static void disconnect_db(struct kx_kv *kv)
{
	destroy_handles(kv->families, kv->opened_count);
	if (kv->db)
		rocksdb_close(kv->db);
	kv->opened_count = 0;
	kv->db = NULL;
}

static struct mark look(const char *path)
{
	KX_CLEANUP(kx_cleanup_free) char *current = kx_fs_join(path, "CURRENT");
	KX_CLEANUP(kx_cleanup_free) char *manifest = NULL;
	struct kx_buf name = {.max = sizeof(((struct mark *)0)->manifest) - 1};
	struct mark mark = {.len = -1};
	struct stat info;

	if (current && kx_fs_read(current, name.max, &name, NULL) == KX_OK && name.len > 1) {
		memcpy(mark.manifest, name.data, name.len - 1); /* without the newline */
		manifest = kx_fs_join(path, mark.manifest);
	}
	if (manifest && stat(manifest, &info) == 0)
		mark.len = info.st_size;
	kx_buf_done(&name);
	return mark;
}

static bool same_mark(const struct mark *a, const struct mark *b)
{
	return a->len == b->len && kx_str_eq(a->manifest, b->manifest);
}

/* RocksDB opens for reading as if nobody wrote: it reads the manifest, then the logs. A flush between the two takes a
 * log away, and what stood in it is seen neither there nor in a file. So: when the manifest moved, once more. */
static kx_status connect_reader(struct kx_kv *kv, const struct kx_kv_options *options, struct kx_error *error)
{
	for (int i = 0; i < READER_ATTEMPTS; i++) {
		struct mark before = look(kv->path);
		kx_status status = connect_db(kv, options, true, true, error);
		struct mark after = look(kv->path);

		if (same_mark(&before, &after))
			return status;
		disconnect_db(kv);
	}
	return kx_error_set(error, KX_EBUSY, KX_ERROR_RETRY, "store %s: its writer changes it too fast; try again",
			    kv->path);
}

static struct kx_kv *make_handle(const char *path, bool read_only)
{
	struct kx_kv *kv = calloc(1, sizeof(*kv));

	if (!kv)
		return NULL;
	kv->read_only = read_only;
	kv->path = kx_strdup(path);
	kv->families = calloc(FAMILIES_MAX, sizeof(kv->families[0]));
	kv->compress = calloc(FAMILIES_MAX, sizeof(kv->compress[0]));
	kv->read = rocksdb_readoptions_create();
	kv->write = rocksdb_writeoptions_create();
	kv->write_synced = rocksdb_writeoptions_create();
	if (!kv->path || !kv->families || !kv->compress) {
		kx_kv_close(kv);
		return NULL;
	}
	rocksdb_writeoptions_set_sync(kv->write_synced, 1);
	return kv;
}

static kx_status open_any(const char *path, const struct kx_kv_options *options, bool cached, struct kx_kv **ret,
			  struct kx_error *error)
{
	KX_CLEANUP(kx_kv_cleanup) struct kx_kv *kv = NULL;
	KX_CLEANUP(kx_cleanup_free) char *current = NULL;
	bool create = options->create && !options->read_only;
	bool exists = false;
	kx_status status = KX_OK;

	kv = make_handle(path, options->read_only);
	current = kx_fs_join(path, "CURRENT"); /* the file that makes a folder a store */
	if (!kv || !current)
		return kx_error_nomem(error);
	exists = kx_fs_exists(current);
	if (!exists && !create)
		return kx_error_set(error, KX_ENOTFOUND, KX_ERROR_FATAL,
				    "store %s: there is none; index something first", path);
	if (!exists)
		status = kx_fs_mkdirs(path, error);
	if (!status && options->read_only && cached)
		status = connect_reader(kv, options, error);
	else if (!status)
		status = connect_db(kv, options, exists, cached, error);
	if (status)
		return status;
	if (!kv->read_only)
		kx_kv_bulk_sweep(kv);
	*ret = KX_STEAL(kv);
	return KX_OK;
}

kx_status kx_kv_open(const char *path, const struct kx_kv_options *options, struct kx_kv **ret, struct kx_error *error)
{
	if (kx_fault("kv.open"))
		return kx_error_set(error, KX_EIO, KX_ERROR_FATAL, "store %s: can't be opened (injected)", path);
	return open_any(path, options, true, ret, error);
}

kx_status kx_kv_open_uncached(const char *path, struct kx_kv **ret, struct kx_error *error)
{
	return open_any(path, &(struct kx_kv_options){.read_only = true}, false, ret, error);
}

void kx_kv_close(struct kx_kv *kv)
{
	if (!kv)
		return;
	assert(!atomic_load(&kv->open_iters));
	disconnect_db(kv);
	rocksdb_readoptions_destroy(kv->read);
	rocksdb_writeoptions_destroy(kv->write);
	rocksdb_writeoptions_destroy(kv->write_synced);
	free(kv->families);
	free(kv->compress);
	free(kv->path);
	free(kv);
}

void kx_kv_cleanup(struct kx_kv **kv)
{
	kx_kv_close(*kv);
}
