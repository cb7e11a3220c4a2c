/* What changes become before they are written: shared by the files that stage and that apply. Layer: shard/index. */
#ifndef KX_SHARD_INDEX_STAGE_H
#define KX_SHARD_INDEX_STAGE_H

#include "shard/index/internal.h"

struct kx_istep {
	const struct kx_index_change *change;
	struct kx_ispace *space;
	uint32_t old_row, old_cell; /* KX_IVF_NO_ROW, KX_IVF_NO_CELL: none */
	uint32_t row, cell;         /* likewise, of a removal */
	size_t entry;               /* where it is in entries */
	size_t halves;              /* and its vector, in halves */
	struct kx_irow *memory;     /* the key, for the table */
	float distance2;
	bool counts; /* false: a later change of the same key does, or nothing is to be done */
};

struct kx_index_staged {
	struct kx_istep *steps;
	size_t count;
	struct kx_buf entries, halves;
	void **garbage; /* [2 * count] keys that searches may still read, until they are over */
	size_t garbage_count;
};

void kx_istaged_free(struct kx_index_staged *staged);

#endif
