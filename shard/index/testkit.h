/* An index in a temporary folder, and vectors for it, for the tests of this folder. Layer: shard/index. */
#ifndef KX_SHARD_INDEX_TESTKIT_H
#define KX_SHARD_INDEX_TESTKIT_H

#include "common/base/testkit.h"
#include "shard/index/index.h"

struct kx_kit_index {
	char folder[64];
	char path[80]; /* folder/store */
	char dir[80];  /* folder/vectors */
	struct kx_index_options options; /* what it is opened with; kv, family and dir are filled in */
	struct kx_kv *kv;
	struct kx_index *index;
};

/* One family stands before the index's, as in a caller's store. */
enum { KX_KIT_OTHER, KX_KIT_FIRST };

void kx_kit_index_init(struct kx_kit_index *kit); /* small cells, no threads, a folder */
void kx_kit_index_done(struct kx_kit_index *kit); /* closes and removes */
kx_status kx_kit_index_open(struct kx_kit_index *kit, struct kx_error *error) KX_MUST_CHECK;
void kx_kit_index_close(struct kx_kit_index *kit);

/* A vector among clusters: `centers` of them, spread around each. */
void kx_kit_vector(uint64_t *random, uint32_t dim, uint32_t centers, float *ret);

kx_status kx_kit_put(struct kx_kit_index *kit, uint32_t space, uint32_t number, const float *vector, uint32_t dim,
		     struct kx_error *error) KX_MUST_CHECK; /* key: "v<number>"; vector NULL: takes it away */
uint32_t kx_kit_number(const struct kx_index_hit *hit);
/* Flips a bit in every third record of a cell; how many records there are. The store's checksums are right: it wrote the rot. */
uint32_t kx_kit_rot_cells(struct kx_kit_index *kit);
/* Ends the program with the first fault, when there is one. */
void kx_kit_verify(struct kx_kit_index *kit);

#endif
