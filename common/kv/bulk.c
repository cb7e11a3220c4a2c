/* Values in files of their own, which the store takes over. */
#include <stdlib.h>
#include <unistd.h>

#include "common/base/fault.h"
#include "common/base/fs.h"
#include "common/base/str.h"
#include "common/kv/internal.h"

#define FOLDER "bulk"
#define FILE_BYTES ((size_t)64 << 20)

struct kx_kv_bulk {
	struct kx_kv *kv;
	size_t family;
	rocksdb_envoptions_t *env;
	rocksdb_options_t *options;
	rocksdb_sstfilewriter_t *writer; /* NULL: no file is open */
	size_t file_bytes;               /* given to it */
	char **files;
	size_t file_count;
};

void kx_kv_bulk_sweep(const struct kx_kv *kv)
{
	KX_CLEANUP(kx_cleanup_free) char *folder = kx_fs_join(kv->path, FOLDER);

	/* What can't be removed takes room and does nothing else. */
	if (folder && kx_fs_exists(folder))
		(void)!kx_fs_remove_tree(folder, NULL);
}

kx_status kx_kv_bulk_new(struct kx_kv *kv, size_t family, struct kx_kv_bulk **ret, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_bulk_cleanup) struct kx_kv_bulk *bulk = calloc(1, sizeof(*bulk));
	KX_CLEANUP(kx_cleanup_free) char *folder = kx_fs_join(kv->path, FOLDER);
	kx_status status;

	if (!bulk || !folder)
		return kx_error_nomem(error);
	if (kv->read_only)
		return kx_error_set(error, KX_EPERM, KX_ERROR_FATAL, "store %s: it is open for reading only", kv->path);
	bulk->kv = kv;
	bulk->family = family;
	bulk->env = rocksdb_envoptions_create();
	bulk->options = kx_kv_table_options(kv->compress[family]);
	status = kx_fs_mkdirs(folder, error);
	if (!status)
		*ret = KX_STEAL(bulk);
	return status;
}

static kx_status fail(struct kx_kv_bulk *bulk, char *text, struct kx_error *error)
{
	/* A file that failed once must not be touched again: in Debian's build that is an assertion. */
	if (bulk->writer)
		rocksdb_sstfilewriter_destroy(KX_STEAL(bulk->writer));
	return kx_kv_fail(bulk->kv->path, text, error);
}

static kx_status injected(const struct kx_kv_bulk *bulk, struct kx_error *error)
{
	return kx_error_set(error, KX_EFULL, KX_ERROR_FATAL, "store %s: the disk is full (injected)", bulk->kv->path);
}

static kx_status open_file(struct kx_kv_bulk *bulk, struct kx_error *error)
{
	char **files = realloc(bulk->files, (bulk->file_count + 1) * sizeof(*files));
	char *text = NULL;

	if (!files)
		return kx_error_nomem(error);
	bulk->files = files;
	files[bulk->file_count] = kx_strf("%s/" FOLDER "/%llu.sst", bulk->kv->path,
					  (unsigned long long)atomic_fetch_add(&bulk->kv->bulk_files, 1));
	if (!files[bulk->file_count])
		return kx_error_nomem(error);
	bulk->file_count++;
	if (kx_fault("kv.write"))
		return injected(bulk, error);
	bulk->file_bytes = 0;
	bulk->writer = rocksdb_sstfilewriter_create(bulk->env, bulk->options);
	rocksdb_sstfilewriter_open(bulk->writer, files[bulk->file_count - 1], &text);
	return text ? fail(bulk, text, error) : KX_OK;
}

/* Synced, too. */
static kx_status end_file(struct kx_kv_bulk *bulk, struct kx_error *error)
{
	char *text = NULL;

	if (kx_fault("kv.write"))
		return injected(bulk, error);
	rocksdb_sstfilewriter_finish(bulk->writer, &text);
	if (text)
		return fail(bulk, text, error);
	rocksdb_sstfilewriter_destroy(KX_STEAL(bulk->writer));
	return KX_OK;
}

kx_status kx_kv_bulk_put(struct kx_kv_bulk *bulk, const void *key, size_t key_len, const void *value, size_t value_len,
			 struct kx_error *error)
{
	char *text = NULL;
	kx_status status = KX_OK;

	if (bulk->writer && bulk->file_bytes >= FILE_BYTES)
		status = end_file(bulk, error);
	if (!status && !bulk->writer)
		status = open_file(bulk, error);
	if (status)
		return status;
	rocksdb_sstfilewriter_put(bulk->writer, key, key_len, value, value_len, &text);
	bulk->file_bytes += key_len + value_len;
	return text ? fail(bulk, text, error) : KX_OK;
}

kx_status kx_kv_bulk_finish(struct kx_kv_bulk *bulk, struct kx_error *error)
{
	rocksdb_ingestexternalfileoptions_t *options;
	char *text = NULL;
	kx_status status = bulk->writer ? end_file(bulk, error) : KX_OK;

	if (status || !bulk->file_count)
		return status;
	if (kx_fault("kv.write"))
		return injected(bulk, error);
	options = rocksdb_ingestexternalfileoptions_create();
	rocksdb_ingestexternalfileoptions_set_move_files(options, 1);
	rocksdb_ingest_external_file_cf(bulk->kv->db, bulk->kv->families[bulk->family],
					(const char *const *)bulk->files, bulk->file_count, options, &text);
	rocksdb_ingestexternalfileoptions_destroy(options);
	return text ? fail(bulk, text, error) : KX_OK;
}

void kx_kv_bulk_free(struct kx_kv_bulk *bulk)
{
	if (!bulk)
		return;
	if (bulk->writer)
		rocksdb_sstfilewriter_destroy(bulk->writer);
	for (size_t i = 0; i < bulk->file_count; i++) {
		(void)unlink(bulk->files[i]); /* gone already when the store took it over */
		free(bulk->files[i]);
	}
	free(bulk->files);
	if (bulk->options)
		rocksdb_options_destroy(bulk->options);
	if (bulk->env)
		rocksdb_envoptions_destroy(bulk->env);
	free(bulk);
}

void kx_kv_bulk_cleanup(struct kx_kv_bulk **bulk)
{
	kx_kv_bulk_free(*bulk);
}
