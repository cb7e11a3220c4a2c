/* A video's moments as the index takes them. Internal to shard/query. */
#ifndef KX_SHARD_QUERY_MOMENTS_CHANGES_H
#define KX_SHARD_QUERY_MOMENTS_CHANGES_H

#include "shard/query/moments_index_internal.h"

struct kx_moment_item {
	enum kx_modality modality;
	uint32_t number;
	bool paired; /* the other modality has this moment, too */
	uint32_t dim;
	char space[KX_SPACE_MAX];
	float *vector; /* unit length; owned */
};

struct kx_moment_items {
	struct kx_moment_item *list;
	size_t count, cap;
};
void kx_moment_items_done(struct kx_moment_items *items);
/* Those that point somewhere, the picture's first, each by number. Appended. */
kx_status kx_moment_items_read(struct kx_store *store, const char *id, uint64_t generation,
			       struct kx_moment_items *ret, struct kx_error *error) KX_MUST_CHECK;

/* The index's space, made when missing; KX_INDEX_SPACES_MAX: it can't hold it, and that is logged. */
kx_status kx_moments_space_of(struct kx_index *index, const struct kx_moment_item *item, uint32_t *ret,
			      struct kx_error *error) KX_MUST_CHECK;
kx_status kx_moments_change_item(struct kx_moments_changes *changes, uint32_t space, const struct kx_moment_item *item,
				 const uint8_t *key, size_t key_len, uint64_t generation) KX_MUST_CHECK;
kx_status kx_moments_change_drop(struct kx_moments_changes *changes, uint32_t space, const void *key,
				 size_t key_len) KX_MUST_CHECK;

#endif
