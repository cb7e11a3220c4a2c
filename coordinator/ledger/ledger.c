#include "coordinator/ledger/ledger.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/fs.h"
#include "common/base/str.h"
#include "coordinator/ledger/internal.h"

#define VERSION "1"
#define VERSION_KEY "version"
#define VERSION_LEN_MAX 32
#define WRITE_BUFFER_BYTES ((size_t)8 << 20)
#define CACHE_BYTES ((size_t)8 << 20)

static const struct kx_kv_family families[KX_LEDGER_FAMILIES] = {
	[KX_LEDGER_INPUTS] = {"inputs", true},
	[KX_LEDGER_CONTENT] = {"content", false},
	[KX_LEDGER_DEAD] = {"dead", true},
	[KX_LEDGER_META] = {"meta", false},
};

static kx_status open_store(struct kx_ledger *ledger, bool read_only, struct kx_error *error)
{
	const struct kx_kv_options options = {
		.families = families,
		.family_count = KX_LEDGER_FAMILIES,
		.read_only = read_only,
		.create = !read_only,
		.write_buffer_bytes = WRITE_BUFFER_BYTES,
		.cache_bytes = CACHE_BYTES,
	};
	char *path KX_CLEANUP(kx_cleanup_free) = kx_fs_join(ledger->data_dir, "ledger");
	kx_status status = path ? kx_kv_open(path, &options, &ledger->kv, error) : kx_error_nomem(error);

	switch (status) {
	case KX_ENOTFOUND:
		return kx_error_set(error, status, KX_ERROR_FATAL,
				    "%s: nothing has been indexed into this directory yet; run kinodex index first",
				    ledger->data_dir);
	case KX_EBUSY:
		return kx_error_set(error, status, KX_ERROR_FATAL,
				    "%s: another kinodex is indexing into this directory; wait for it, or use another "
				    "one", ledger->data_dir);
	default:
		return status;
	}
}

static kx_status write_version(struct kx_ledger *ledger, struct kx_error *error)
{
	struct kx_kv_batch *batch KX_CLEANUP(kx_kv_batch_cleanup) = NULL;

	if (kx_kv_batch_new(ledger->kv, &batch))
		return kx_error_nomem(error);
	kx_kv_batch_put(batch, KX_LEDGER_META, VERSION_KEY, strlen(VERSION_KEY), VERSION, strlen(VERSION));
	return kx_kv_write(ledger->kv, batch, true, error);
}

/* A ledger without one is being made, or its maker died over it: it is empty. */
static kx_status check_version(struct kx_ledger *ledger, bool read_only, struct kx_error *error)
{
	struct kx_buf value KX_CLEANUP(kx_buf_done) = {.max = VERSION_LEN_MAX};
	kx_status status = kx_kv_get(ledger->kv, KX_LEDGER_META, VERSION_KEY, strlen(VERSION_KEY), &value, error);

	if (status == KX_ENOTFOUND)
		return read_only ? KX_OK : write_version(ledger, error);
	if (status)
		return status;
	if (kx_str_eq((const char *)value.data, VERSION))
		return KX_OK;
	return kx_error_set(error, KX_EVERSION, KX_ERROR_FATAL,
			    "%s: its ledger has format %s and this kinodex reads format " VERSION
			    "; use the kinodex that wrote it, or another data directory",
			    ledger->data_dir, (const char *)value.data);
}

kx_status kx_ledger_open(const char *data_dir, bool read_only, struct kx_ledger **ret, struct kx_error *error)
{
	struct kx_ledger *ledger KX_CLEANUP(kx_ledger_cleanup) = calloc(1, sizeof(*ledger));
	kx_status status;

	if (!ledger)
		return kx_error_nomem(error);
	pthread_mutex_init(&ledger->writing, NULL); /* the default kind can't fail */
	ledger->data_dir = kx_strdup(data_dir);
	status = ledger->data_dir ? open_store(ledger, read_only, error) : kx_error_nomem(error);
	if (!status)
		status = check_version(ledger, read_only, error);
	if (!status)
		*ret = KX_STEAL(ledger);
	return status;
}

kx_status kx_ledger_checkpoint(struct kx_ledger *ledger, const char *path, struct kx_error *error)
{
	return kx_kv_checkpoint(ledger->kv, path, error);
}

void kx_ledger_close(struct kx_ledger *ledger)
{
	if (!ledger)
		return;
	kx_kv_close(ledger->kv);
	pthread_mutex_destroy(&ledger->writing);
	free(ledger->data_dir);
	free(ledger);
}

void kx_ledger_cleanup(struct kx_ledger **ledger)
{
	kx_ledger_close(*ledger);
	*ledger = NULL;
}

static kx_status wrong_record(const struct kx_ledger *ledger, kx_status status, const char *what, const void *id,
			      size_t id_len, struct kx_error *error)
{
	return kx_error_prefix(error, status, "%s: ledger: %s \"%.*s\"", ledger->data_dir, what,
			       id_len < KX_ID_MAX ? (int)id_len : (int)KX_ID_MAX, (const char *)id);
}

static bool is_key(const char *video_id, const void *id, size_t id_len)
{
	return strlen(video_id) == id_len && memcmp(video_id, id, id_len) == 0;
}

kx_status kx_ledger_parse_input(const struct kx_ledger *ledger, const void *id, size_t id_len, const void *value,
				size_t value_len, struct kx_input **ret, struct kx_error *error)
{
	struct kx_input *input KX_CLEANUP(kx_input_cleanup) = NULL;
	kx_status status = kx_input_unpack(value, value_len, &input, error);

	if (!status && !is_key(input->video_id, id, id_len))
		status = kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "it holds \"%s\"", input->video_id);
	if (status)
		return wrong_record(ledger, status, "input", id, id_len, error);
	*ret = KX_STEAL(input);
	return KX_OK;
}

kx_status kx_ledger_parse_letter(const struct kx_ledger *ledger, const void *id, size_t id_len, const void *value,
				 size_t value_len, struct kx_dead_letter **ret, struct kx_error *error)
{
	struct kx_dead_letter *letter KX_CLEANUP(kx_dead_letter_cleanup) = NULL;
	kx_status status = kx_dead_letter_unpack(value, value_len, &letter, error);

	if (!status && !is_key(letter->video_id, id, id_len))
		status = kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "it holds \"%s\"", letter->video_id);
	if (status)
		return wrong_record(ledger, status, "dead letter", id, id_len, error);
	*ret = KX_STEAL(letter);
	return KX_OK;
}

kx_status kx_ledger_read_input(struct kx_ledger *ledger, const void *id, size_t len, struct kx_input **ret,
			       struct kx_error *error)
{
	struct kx_buf value KX_CLEANUP(kx_buf_done) = {.max = KX_RECORD_MAX};
	kx_status status = kx_kv_get(ledger->kv, KX_LEDGER_INPUTS, id, len, &value, error);

	return status ? status : kx_ledger_parse_input(ledger, id, len, value.data, value.len, ret, error);
}

kx_status kx_ledger_get(struct kx_ledger *ledger, const char *video_id, struct kx_input **ret, struct kx_error *error)
{
	return kx_ledger_read_input(ledger, video_id, strlen(video_id), ret, error);
}

kx_status kx_ledger_get_dead(struct kx_ledger *ledger, const char *video_id, struct kx_dead_letter **ret,
			     struct kx_error *error)
{
	struct kx_buf value KX_CLEANUP(kx_buf_done) = {.max = KX_RECORD_MAX};
	size_t len = strlen(video_id);
	kx_status status = kx_kv_get(ledger->kv, KX_LEDGER_DEAD, video_id, len, &value, error);

	return status ? status : kx_ledger_parse_letter(ledger, video_id, len, value.data, value.len, ret, error);
}

kx_status kx_ledger_by_content(struct kx_ledger *ledger, const uint8_t sha256[KX_SHA_LEN], char **ret_id,
			       struct kx_error *error)
{
	struct kx_kv_iter *iter KX_CLEANUP(kx_kv_iter_cleanup) = NULL;
	const char *key;
	char *id;
	size_t len;

	if (kx_kv_iter_new(ledger->kv, KX_LEDGER_CONTENT, sha256, KX_SHA_LEN, &iter))
		return kx_error_nomem(error);
	if (!kx_kv_iter_valid(iter)) {
		kx_status status = kx_kv_iter_error(iter, error);

		return status ? status : KX_ENOTFOUND;
	}
	key = kx_kv_iter_key(iter, &len);
	id = kx_strndup(key + KX_SHA_LEN, len - KX_SHA_LEN);
	if (!id)
		return kx_error_nomem(error);
	*ret_id = id;
	return KX_OK;
}

kx_status kx_ledger_each(struct kx_ledger *ledger,
			 kx_status (*visit)(void *ctx, const struct kx_input *input, struct kx_error *error),
			 void *ctx, struct kx_error *error)
{
	struct kx_kv_iter *iter KX_CLEANUP(kx_kv_iter_cleanup) = NULL;

	if (kx_kv_iter_new(ledger->kv, KX_LEDGER_INPUTS, NULL, 0, &iter))
		return kx_error_nomem(error);
	for (; kx_kv_iter_valid(iter); kx_kv_iter_next(iter)) {
		struct kx_input *input KX_CLEANUP(kx_input_cleanup) = NULL;
		size_t id_len, value_len;
		const void *id = kx_kv_iter_key(iter, &id_len);
		const void *value = kx_kv_iter_value(iter, &value_len);
		kx_status status = kx_ledger_parse_input(ledger, id, id_len, value, value_len, &input, error);

		if (!status)
			status = visit(ctx, input, error);
		if (status)
			return status;
	}
	return kx_kv_iter_error(iter, error);
}

kx_status kx_ledger_each_dead(struct kx_ledger *ledger,
			      kx_status (*visit)(void *ctx, const struct kx_dead_letter *letter,
						 struct kx_error *error),
			      void *ctx, struct kx_error *error)
{
	struct kx_kv_iter *iter KX_CLEANUP(kx_kv_iter_cleanup) = NULL;

	if (kx_kv_iter_new(ledger->kv, KX_LEDGER_DEAD, NULL, 0, &iter))
		return kx_error_nomem(error);
	for (; kx_kv_iter_valid(iter); kx_kv_iter_next(iter)) {
		struct kx_dead_letter *letter KX_CLEANUP(kx_dead_letter_cleanup) = NULL;
		size_t id_len, value_len;
		const void *id = kx_kv_iter_key(iter, &id_len);
		const void *value = kx_kv_iter_value(iter, &value_len);
		kx_status status = kx_ledger_parse_letter(ledger, id, id_len, value, value_len, &letter, error);

		if (!status)
			status = visit(ctx, letter, error);
		if (status)
			return status;
	}
	return kx_kv_iter_error(iter, error);
}
