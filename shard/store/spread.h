/* The stores of a catalogue made anew as another number of them: what each id has goes to the store of its part, counted
 * on both sides. Layer: shard/store.
 *
 * Nothing is written to what is read. A store that is being filled says so in its format until it is whole, so that no
 * program opens what a killed one left. The vector index is not copied: who opens a store to write makes it of the records. */
#ifndef KX_SHARD_STORE_SPREAD_H
#define KX_SHARD_STORE_SPREAD_H

#include "shard/store/store.h"

struct kx_spread {
	struct kx_store *const *from; /* all parts of one catalogue, in any order */
	const char *const *names;     /* theirs, for errors */
	size_t from_count;
	uint32_t parts;      /* to make */
	uint32_t partitions; /* of the results topic; 0: as the stores say, which those of a whole catalogue do not */
	/* As the bus does it. */
	int (*partition_of)(const void *id, size_t len, int partitions);
	bool (*goes_on)(void *ctx); /* asked now and then; NULL: yes */
	void *ctx;
};

/* Records of one store, or of all. */
struct kx_spread_counts {
	uint64_t videos, moments, pending, events, deletions, offsets;
};

/* Whether stores of these parts are one whole catalogue, and can become `parts` of the topic's *partitions, which is set where
 * it is 0. Pure. KX_EINVAL says which part is missing, or there twice, or of another division. */
kx_status kx_spread_check(const struct kx_store_part *from, const char *const *names, size_t count, uint32_t parts,
			  uint32_t *partitions, struct kx_error *error) KX_MUST_CHECK;

/* Fills to[parts], which are new and empty, and reads all of it back. *ret is their sum, and that of what was read; each[parts]
 * what every one got. After a failure the stores are of no use. KX_EINVAL: of the parts, see above; KX_ECORRUPT: an id that
 * is not of its store's part, or a record that is none; KX_ECANCELED: goes_on() said no; KX_EFULL. Blocks for long. */
kx_status kx_spread_stores(const struct kx_spread *spread, struct kx_store *const *to, struct kx_spread_counts *each,
			   struct kx_spread_counts *ret, struct kx_error *error) KX_MUST_CHECK;

#endif
