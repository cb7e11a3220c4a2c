#include "common/kv/kv.h"

#include <assert.h>
#include <stdlib.h>

#include "common/base/fault.h"
#include "common/base/fs.h"
#include "common/kv/internal.h"

#define VERIFY_READAHEAD_BYTES ((size_t)1 << 20)

struct kx_kv_batch {
	struct kx_kv *kv;
	rocksdb_writebatch_t *changes;
};

static rocksdb_column_family_handle_t *family_of(const struct kx_kv *kv, size_t family)
{
	assert(family < kv->family_count);
	return kv->families[family];
}

static kx_status need_writer(const struct kx_kv *kv, struct kx_error *error)
{
	if (!kv->read_only)
		return KX_OK;
	return kx_error_set(error, KX_EPERM, KX_ERROR_FATAL, "store %s: it is open for reading only", kv->path);
}

kx_status kx_kv_get(struct kx_kv *kv, size_t family, const void *key, size_t key_len, struct kx_buf *out,
		    struct kx_error *error)
{
	rocksdb_pinnableslice_t *slice;
	char *text = NULL;
	const char *value;
	size_t len;
	kx_status status;

	if (kx_fault("kv.read"))
		return kx_error_set(error, KX_EIO, KX_ERROR_FATAL, "store %s: can't be read (injected)", kv->path);
	slice = rocksdb_get_pinned_cf(kv->db, kv->read, family_of(kv, family), key, key_len, &text);
	if (text)
		return kx_kv_fail(kv->path, text, error);
	if (!slice)
		return KX_ENOTFOUND;
	value = rocksdb_pinnableslice_value(slice, &len);
	status = kx_buf_append(out, value, len);
	rocksdb_pinnableslice_destroy(slice);
	if (status)
		return kx_error_set(error, status, KX_ERROR_FATAL, "store %s: a value of %zu bytes: %s", kv->path, len,
				    kx_status_name(status));
	return KX_OK;
}

kx_status kx_kv_batch_new(struct kx_kv *kv, struct kx_kv_batch **ret)
{
	struct kx_kv_batch *batch = calloc(1, sizeof(*batch));

	if (!batch)
		return KX_ENOMEM;
	batch->kv = kv;
	batch->changes = rocksdb_writebatch_create();
	*ret = batch;
	return KX_OK;
}

void kx_kv_batch_free(struct kx_kv_batch *batch)
{
	if (!batch)
		return;
	rocksdb_writebatch_destroy(batch->changes);
	free(batch);
}

void kx_kv_batch_cleanup(struct kx_kv_batch **batch)
{
	kx_kv_batch_free(*batch);
}

void kx_kv_batch_put(struct kx_kv_batch *batch, size_t family, const void *key, size_t key_len, const void *value,
		     size_t value_len)
{
	rocksdb_writebatch_put_cf(batch->changes, family_of(batch->kv, family), key, key_len, value, value_len);
}

void kx_kv_batch_delete(struct kx_kv_batch *batch, size_t family, const void *key, size_t key_len)
{
	rocksdb_writebatch_delete_cf(batch->changes, family_of(batch->kv, family), key, key_len);
}

void kx_kv_batch_delete_range(struct kx_kv_batch *batch, size_t family, const void *from, size_t from_len,
			      const void *to, size_t to_len)
{
	rocksdb_writebatch_delete_range_cf(batch->changes, family_of(batch->kv, family), from, from_len, to, to_len);
}

size_t kx_kv_batch_count(const struct kx_kv_batch *batch)
{
	return (size_t)rocksdb_writebatch_count(batch->changes);
}

kx_status kx_kv_write(struct kx_kv *kv, struct kx_kv_batch *batch, bool sync, struct kx_error *error)
{
	kx_status status = need_writer(kv, error);
	char *text = NULL;

	assert(batch->kv == kv);
	if (status)
		return status;
	if (kx_fault("kv.write"))
		return kx_error_set(error, KX_EFULL, KX_ERROR_FATAL, "store %s: the disk is full (injected)",
				    kv->path);
	rocksdb_write(kv->db, sync ? kv->write_synced : kv->write, batch->changes, &text);
	if (text)
		return kx_kv_fail(kv->path, text, error);
	rocksdb_writebatch_clear(batch->changes);
	return KX_OK;
}

kx_status kx_kv_flush(struct kx_kv *kv, struct kx_error *error)
{
	kx_status status = need_writer(kv, error);
	rocksdb_flushoptions_t *options;
	char *text = NULL;

	if (status)
		return status;
	options = rocksdb_flushoptions_create();
	rocksdb_flushoptions_set_wait(options, 1);
	for (size_t i = 0; !text && i < kv->opened_count; i++)
		rocksdb_flush_cf(kv->db, options, kv->families[i], &text);
	rocksdb_flushoptions_destroy(options);
	return text ? kx_kv_fail(kv->path, text, error) : KX_OK;
}

static uint64_t background_errors(struct kx_kv *kv)
{
	uint64_t count = 0;

	(void)rocksdb_property_int(kv->db, "rocksdb.background-errors", &count);
	return count;
}

kx_status kx_kv_compact(struct kx_kv *kv, struct kx_error *error)
{
	kx_status status = kx_kv_flush(kv, error);
	uint64_t before;

	if (status)
		return status;
	/* The C API's compaction says nothing of how it went; the store's count of failures does. */
	before = background_errors(kv);
	for (size_t i = 0; i < kv->opened_count && !atomic_load(&kv->compaction_stopped); i++)
		rocksdb_compact_range_cf(kv->db, kv->families[i], NULL, 0, NULL, 0);
	if (atomic_load(&kv->compaction_stopped))
		return kx_error_set(error, KX_ECANCELED, KX_ERROR_RETRY,
				    "store %s: was closed before all of it was compacted; nothing is lost", kv->path);
	if (background_errors(kv) != before)
		return kx_error_set(error, KX_EIO, KX_ERROR_FATAL,
				    "store %s: compaction failed; is there room on the disk? (%s/LOG says more)", kv->path,
				    kv->path);
	return KX_OK;
}

void kx_kv_stop_compaction(struct kx_kv *kv)
{
	atomic_store(&kv->compaction_stopped, true);
	rocksdb_disable_manual_compaction(kv->db);
}

static kx_status read_family(const struct kx_kv *kv, rocksdb_column_family_handle_t *family,
			     const rocksdb_readoptions_t *options, struct kx_error *error)
{
	rocksdb_iterator_t *rocks = rocksdb_create_iterator_cf(kv->db, options, family);
	char *text = NULL;

	for (rocksdb_iter_seek_to_first(rocks); rocksdb_iter_valid(rocks);)
		rocksdb_iter_next(rocks);
	rocksdb_iter_get_error(rocks, &text);
	rocksdb_iter_destroy(rocks);
	return text ? kx_kv_fail(kv->path, text, error) : KX_OK;
}

/* Through a second, uncached opening: this handle's own cache would answer for bytes that have rotted on disk. */
static kx_status verify_files(const char *path, struct kx_error *error)
{
	KX_CLEANUP(kx_kv_cleanup) struct kx_kv *files = NULL;
	rocksdb_readoptions_t *options;
	kx_status status = kx_kv_open_uncached(path, &files, error);

	if (status)
		return status;
	options = rocksdb_readoptions_create();
	rocksdb_readoptions_set_verify_checksums(options, 1);
	rocksdb_readoptions_set_readahead_size(options, VERIFY_READAHEAD_BYTES);
	for (size_t i = 0; !status && i < files->opened_count; i++)
		status = read_family(files, files->families[i], options, error);
	rocksdb_readoptions_destroy(options);
	return status;
}

kx_status kx_kv_verify(struct kx_kv *kv, struct kx_error *error)
{
	char *text = NULL;
	kx_status status;

	if (kv->read_only)
		return verify_files(kv->path, error);
	/* So that no compaction takes a file away between the listing and the opening. */
	rocksdb_disable_file_deletions(kv->db, &text);
	if (text)
		return kx_kv_fail(kv->path, text, error);
	status = verify_files(kv->path, error);
	rocksdb_enable_file_deletions(kv->db, 0, &text);
	if (!text)
		return status;
	if (!status)
		return kx_kv_fail(kv->path, text, error);
	rocksdb_free(text);
	return status;
}

uint64_t kx_kv_disk_bytes(struct kx_kv *kv)
{
	return kx_fs_tree_bytes(kv->path);
}

kx_status kx_kv_checkpoint(struct kx_kv *kv, const char *path, struct kx_error *error)
{
	kx_status status = need_writer(kv, error);
	rocksdb_checkpoint_t *checkpoint;
	char *text = NULL;

	if (status)
		return status;
	if (kx_fs_exists(path))
		return kx_error_set(error, KX_EEXIST, KX_ERROR_POISON, "store %s: %s is there already", kv->path, path);
	checkpoint = rocksdb_checkpoint_object_create(kv->db, &text);
	if (!text)
		rocksdb_checkpoint_create(checkpoint, path, 0, &text);
	if (checkpoint)
		rocksdb_checkpoint_object_destroy(checkpoint);
	return text ? kx_kv_fail(path, text, error) : KX_OK;
}
