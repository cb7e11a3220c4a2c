/* What the files of shard/store share; nobody else includes it. Layer: shard/store. */
#ifndef KX_SHARD_STORE_INTERNAL_H
#define KX_SHARD_STORE_INTERNAL_H

#include "shard/store/store.h"

struct kx_store {
	struct kx_kv *kv;
	bool read_only;
	bool has_more;
	bool notes_changes; /* there is a snapshot that they are of */
	uint64_t changed;
};

/* Of the meta family. */
extern const char kx_store_totals_key[];
extern const char kx_store_snapshot_key[];
extern const char kx_store_changed_prefix[];

kx_status kx_store_look_for_snapshot(struct kx_store *store, struct kx_error *error) KX_MUST_CHECK;
/* With a snapshot: puts into the write that this video is not as it was. */
void kx_store_note_change(struct kx_store *store, struct kx_kv_batch *write, const char *id);

char *kx_store_offset_key(const char *bus, const char *topic, int partition); /* the caller frees; NULL: no memory */

/* A number of the meta family. KX_ENOTFOUND without a message when there is none. key NULL is no memory. */
kx_status kx_store_number(struct kx_store *store, const char *key, uint64_t *ret, struct kx_error *error) KX_MUST_CHECK;

/* What a batch knows of one video: as stored, and changed by the messages of the batch. */
struct kx_entity {
	char *id;
	uint64_t deleted_upto;            /* 0: never deleted, or indexed again since */
	uint64_t stored;                  /* generation of the complete record; 0: none */
	struct kx_pending_video *pending; /* or NULL */
	bool pending_dirty;
};

/* Videos touched by one batch. They are few: a batch holds messages, and a video has many. */
struct kx_entities {
	struct kx_entity *list;
	size_t count, cap;
};

kx_status kx_entity_get(struct kx_store *store, struct kx_entities *all, const char *id, struct kx_entity **ret,
			struct kx_error *error) KX_MUST_CHECK;
/* Replaces what is pending by a copy of `pending`; NULL: nothing is. */
kx_status kx_entity_set_pending(struct kx_entity *entity, const struct kx_pending_video *pending,
				struct kx_error *error) KX_MUST_CHECK;
/* Puts what changed into the write. Nothing is dirty afterwards. */
kx_status kx_entities_write(struct kx_entities *all, struct kx_kv_batch *write, struct kx_error *error) KX_MUST_CHECK;
void kx_entities_done(struct kx_entities *all);

/* The key of a tombstone. The caller frees; NULL: no memory. */
char *kx_store_tombstone_key(const char *id);

#endif
