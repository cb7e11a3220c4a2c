/* The proof that the ledger's sum is right. */
#include <string.h>

#include "common/base/str.h"
#include "coordinator/ledger/internal.h"

struct audit {
	struct kx_ledger *ledger;
	uint64_t counts[KX_INPUT_DELETED + 1];
	uint64_t indexed; /* inputs that belong in the index by content */
};

static kx_status wrong(const struct audit *audit, const char *id, const char *what, struct kx_error *error)
{
	return kx_error_set(error, KX_ECORRUPT, KX_ERROR_FATAL, "%s: ledger: \"%s\" %s", audit->ledger->data_dir, id,
			    what);
}

static kx_status audit_input(void *ctx, const struct kx_input *input, struct kx_error *error)
{
	struct audit *audit = ctx;
	struct kx_dead_letter *letter KX_CLEANUP(kx_dead_letter_cleanup) = NULL;
	uint8_t key[KX_LEDGER_CONTENT_KEY_MAX];
	size_t len;
	kx_status status = kx_ledger_get_dead(audit->ledger, input->video_id, &letter, error);

	if (status && status != KX_ENOTFOUND)
		return status;
	if (!letter && input->state == KX_INPUT_QUARANTINED)
		return wrong(audit, input->video_id, "is quarantined and has no dead letter", error);
	if (letter && input->state != KX_INPUT_QUARANTINED)
		return wrong(audit, input->video_id, "is not quarantined and has a dead letter", error);
	audit->counts[input->state]++;
	audit->indexed += kx_ledger_content_key(input, key, &len);
	return KX_OK;
}

/* The input's own state was looked at with it; here it counts that there is one. */
static kx_status audit_letter(void *ctx, const struct kx_dead_letter *letter, struct kx_error *error)
{
	const struct audit *audit = ctx;
	struct kx_input *input KX_CLEANUP(kx_input_cleanup) = NULL;
	kx_status status = kx_ledger_get(audit->ledger, letter->video_id, &input, error);

	if (status == KX_ENOTFOUND)
		return wrong(audit, letter->video_id, "has a dead letter and is no input", error);
	return status;
}

static kx_status audit_content_key(const struct audit *audit, const uint8_t *key, size_t len, struct kx_error *error)
{
	struct kx_input *input KX_CLEANUP(kx_input_cleanup) = NULL;
	uint8_t expected[KX_LEDGER_CONTENT_KEY_MAX];
	size_t expected_len;
	kx_status status;

	if (len <= KX_SHA_LEN || len > KX_LEDGER_CONTENT_KEY_MAX)
		return wrong(audit, "content", "is an index with a key that is none", error);
	char *id KX_CLEANUP(kx_cleanup_free) = kx_strndup((const char *)key + KX_SHA_LEN, len - KX_SHA_LEN);
	if (!id)
		return kx_error_nomem(error);
	status = kx_ledger_get(audit->ledger, id, &input, error);
	if (status && status != KX_ENOTFOUND)
		return status;
	if (!input || !kx_ledger_content_key(input, expected, &expected_len) || expected_len != len ||
	    memcmp(expected, key, len) != 0)
		return wrong(audit, id, "stands in the index by content, and does not have it", error);
	return KX_OK;
}

/* Each key has its input; so when they are as many, each input has its key. */
static kx_status audit_content(const struct audit *audit, struct kx_error *error)
{
	struct kx_kv_iter *iter KX_CLEANUP(kx_kv_iter_cleanup) = NULL;
	uint64_t count = 0;
	kx_status status = KX_OK;

	if (kx_kv_iter_new(audit->ledger->kv, KX_LEDGER_CONTENT, NULL, 0, &iter))
		return kx_error_nomem(error);
	for (; !status && kx_kv_iter_valid(iter); kx_kv_iter_next(iter)) {
		size_t len;
		const uint8_t *key = kx_kv_iter_key(iter, &len);

		status = audit_content_key(audit, key, len, error);
		count++;
	}
	if (!status)
		status = kx_kv_iter_error(iter, error);
	if (!status && count != audit->indexed)
		return wrong(audit, "content", "is an index that lacks inputs", error);
	return status;
}

static kx_status audit_all(struct audit *audit, struct kx_error *error)
{
	kx_status status = kx_kv_verify(audit->ledger->kv, error);

	if (!status)
		status = kx_ledger_each(audit->ledger, audit_input, audit, error);
	if (!status)
		status = kx_ledger_each_dead(audit->ledger, audit_letter, audit, error);
	if (!status)
		status = audit_content(audit, error);
	return status;
}

kx_status kx_ledger_verify(struct kx_ledger *ledger, uint64_t ret_counts[KX_INPUT_DELETED + 1], struct kx_error *error)
{
	struct audit audit = {.ledger = ledger};
	kx_status status;

	pthread_mutex_lock(&ledger->writing);
	status = audit_all(&audit, error);
	pthread_mutex_unlock(&ledger->writing);
	if (!status)
		memcpy(ret_counts, audit.counts, sizeof(audit.counts));
	return status;
}
