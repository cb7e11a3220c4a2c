/* Writing to the ledger: an input, its dead letter and its place in the index by content change together. */
#include <string.h>

#include "coordinator/ledger/internal.h"

bool kx_ledger_content_key(const struct kx_input *input, uint8_t key[KX_LEDGER_CONTENT_KEY_MAX], size_t *ret_len)
{
	static const uint8_t absent[KX_SHA_LEN];
	size_t id_len = strlen(input->video_id);

	if (input->state != KX_INPUT_DONE && input->state != KX_INPUT_PARTIAL)
		return false;
	if (memcmp(input->content_sha256, absent, KX_SHA_LEN) == 0)
		return false;
	memcpy(key, input->content_sha256, KX_SHA_LEN);
	memcpy(key + KX_SHA_LEN, input->video_id, id_len);
	*ret_len = KX_SHA_LEN + id_len;
	return true;
}

static kx_status cannot_pack(const char *what, kx_status status, const struct kx_error *cause,
			     struct kx_error *error)
{
	if (status == KX_ENOMEM)
		return kx_error_nomem(error);
	return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "ledger: %s that would not read back: %s", what,
			    cause->status ? cause->message : kx_status_name(status));
}

/* Packing does not look at ranges. What is written unseen would make the ledger unreadable for ever, so it is read
 * before, which costs nothing beside the sync. */
static kx_status pack_input(const struct kx_input *input, struct kx_buf *out, struct kx_error *error)
{
	struct kx_input *back KX_CLEANUP(kx_input_cleanup) = NULL;
	struct kx_error cause = {0};
	kx_status status = kx_input_pack(input, out);

	if (!status)
		status = kx_input_unpack(out->data, out->len, &back, &cause);
	return status ? cannot_pack("an input", status, &cause, error) : KX_OK;
}

static kx_status pack_letter(const struct kx_dead_letter *letter, struct kx_buf *out, struct kx_error *error)
{
	struct kx_dead_letter *back KX_CLEANUP(kx_dead_letter_cleanup) = NULL;
	struct kx_error cause = {0};
	kx_status status = kx_dead_letter_pack(letter, out);

	if (!status)
		status = kx_dead_letter_unpack(out->data, out->len, &back, &cause);
	return status ? cannot_pack("a dead letter", status, &cause, error) : KX_OK;
}

static kx_status check_letter(const struct kx_input *input, const struct kx_dead_letter *letter,
			      struct kx_error *error)
{
	if ((input->state == KX_INPUT_QUARANTINED) != (letter != NULL))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
				    "ledger: \"%s\" is %s and comes %s a dead letter", input->video_id,
				    kx_input_state_name(input->state), letter ? "with" : "without");
	if (letter && strcmp(letter->video_id, input->video_id) != 0)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
				    "ledger: \"%s\" comes with the dead letter of \"%s\"", input->video_id,
				    letter->video_id);
	return KX_OK;
}

/* Takes the version that stands in the store out of the index by content. */
static kx_status forget_content(struct kx_ledger *ledger, const struct kx_input *input, struct kx_kv_batch *batch,
				struct kx_error *error)
{
	struct kx_input *before KX_CLEANUP(kx_input_cleanup) = NULL;
	uint8_t key[KX_LEDGER_CONTENT_KEY_MAX];
	size_t len;
	kx_status status = kx_ledger_read_input(ledger, input->video_id, strlen(input->video_id), &before, error);

	if (status)
		return status == KX_ENOTFOUND ? KX_OK : status;
	if (kx_ledger_content_key(before, key, &len))
		kx_kv_batch_delete(batch, KX_LEDGER_CONTENT, key, len);
	return KX_OK;
}

static kx_status put(struct kx_ledger *ledger, const struct kx_input *input, const struct kx_buf *packed,
		     const struct kx_buf *packed_letter, struct kx_error *error)
{
	struct kx_kv_batch *batch KX_CLEANUP(kx_kv_batch_cleanup) = NULL;
	uint8_t key[KX_LEDGER_CONTENT_KEY_MAX];
	size_t id_len = strlen(input->video_id);
	size_t len;
	kx_status status;

	if (kx_kv_batch_new(ledger->kv, &batch))
		return kx_error_nomem(error);
	status = forget_content(ledger, input, batch, error);
	if (status)
		return status;
	kx_kv_batch_put(batch, KX_LEDGER_INPUTS, input->video_id, id_len, packed->data, packed->len);
	if (kx_ledger_content_key(input, key, &len))
		kx_kv_batch_put(batch, KX_LEDGER_CONTENT, key, len, "", 0);
	if (packed_letter->len)
		kx_kv_batch_put(batch, KX_LEDGER_DEAD, input->video_id, id_len, packed_letter->data,
				packed_letter->len);
	else
		kx_kv_batch_delete(batch, KX_LEDGER_DEAD, input->video_id, id_len);
	return kx_kv_write(ledger->kv, batch, true, error);
}

kx_status kx_ledger_put(struct kx_ledger *ledger, const struct kx_input *input, const struct kx_dead_letter *letter,
			struct kx_error *error)
{
	struct kx_buf packed KX_CLEANUP(kx_buf_done) = {.max = KX_RECORD_MAX};
	struct kx_buf packed_letter KX_CLEANUP(kx_buf_done) = {.max = KX_RECORD_MAX};
	kx_status status = pack_input(input, &packed, error);

	if (!status && letter)
		status = pack_letter(letter, &packed_letter, error);
	if (!status)
		status = check_letter(input, letter, error);
	if (status)
		return status;
	pthread_mutex_lock(&ledger->writing);
	status = put(ledger, input, &packed, &packed_letter, error);
	pthread_mutex_unlock(&ledger->writing);
	return status;
}
