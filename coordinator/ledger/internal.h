/* What the files of coordinator/ledger share; nobody else includes it. Layer: coordinator/ledger. */
#ifndef KX_COORDINATOR_LEDGER_INTERNAL_H
#define KX_COORDINATOR_LEDGER_INTERNAL_H

#include <pthread.h>

#include "common/kv/kv.h"
#include "coordinator/ledger/ledger.h"

#define KX_LEDGER_CONTENT_KEY_MAX (KX_SHA_LEN + KX_ID_MAX)

enum {
	KX_LEDGER_INPUTS,  /* id -> Input */
	KX_LEDGER_CONTENT, /* SHA-256 of the content, then id -> nothing; inputs that are done or partial */
	KX_LEDGER_DEAD,    /* id -> DeadLetter */
	KX_LEDGER_META,    /* "version" -> decimal number */
	KX_LEDGER_FAMILIES,
};

struct kx_ledger {
	char *data_dir;
	struct kx_kv *kv;
	pthread_mutex_t writing; /* a put reads before it writes; verify wants to see no half of one */
};

/* The key in the index by content; false when this input does not belong there. */
bool kx_ledger_content_key(const struct kx_input *input, uint8_t key[KX_LEDGER_CONTENT_KEY_MAX], size_t *ret_len);

/* The record under an id. KX_ENOTFOUND without a message; KX_ECORRUPT names data_dir and id. */
kx_status kx_ledger_read_input(struct kx_ledger *ledger, const void *id, size_t len, struct kx_input **ret,
			       struct kx_error *error) KX_MUST_CHECK;
/* From a key and value as they are stored. */
kx_status kx_ledger_parse_input(const struct kx_ledger *ledger, const void *id, size_t id_len, const void *value,
				size_t value_len, struct kx_input **ret, struct kx_error *error) KX_MUST_CHECK;
kx_status kx_ledger_parse_letter(const struct kx_ledger *ledger, const void *id, size_t id_len, const void *value,
				 size_t value_len, struct kx_dead_letter **ret, struct kx_error *error) KX_MUST_CHECK;

#endif
