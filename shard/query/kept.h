/* What a snapshot of a mirror holds, section by section. Rows are numbered by the order of ids. Internal to shard/query.
 *
 * mirror_keep.c makes it of a whole mirror; mirror_kept.c answers by it before everything is read. */
#ifndef KX_SHARD_QUERY_KEPT_H
#define KX_SHARD_QUERY_KEPT_H

#include "shard/ann/ann.h"
#include "shard/query/columns.h"
#include "shard/query/snapshot.h"

struct kx_mirror;
struct kx_moments;

enum kx_kept_kind {
	KX_KEPT_HEAD = 1,
	KX_KEPT_TEXT_AT,    /* u64 [rows + 1] where the texts of a row begin */
	KX_KEPT_TEXT,       /* id, title and source, a zero byte behind each */
	KX_KEPT_FACTS,      /* struct kx_kept_facts [rows] */
	KX_KEPT_LABEL_AT,   /* u64 [rows + 1], in labels */
	KX_KEPT_LABELS,     /* u32 words */
	KX_KEPT_CLASS_AT,   /* u64 [rows + 1], in classes */
	KX_KEPT_CLASSES,    /* struct kx_class_score */
	KX_KEPT_WORD_AT,    /* u64 [words + 1] where a word's text begins; words count from 0 here, from 1 where they are used */
	KX_KEPT_WORD_TEXT,
	KX_KEPT_WORD_FOLD,  /* u32 [words] */
	KX_KEPT_WORD_ROWS_AT, /* u64 [words + 1], in rows */
	KX_KEPT_WORD_ROWS,  /* u32 rows that have it as a label, at its fold */
	KX_KEPT_CLASS_KEYS, /* struct kx_kept_class, by rising key */
	KX_KEPT_CLASS_ROWS, /* u32 rows */
	KX_KEPT_CLASS_SCORES, /* float, the score of each of those */
	KX_KEPT_ATTRIBUTES, /* u32 type and the name with a zero byte, of each that catalogues gave */
	KX_KEPT_NUMBERS,    /* by attribute: double [rows] */
	KX_KEPT_WORDS,      /* by attribute: u32 [rows] */
	KX_KEPT_FLAGS,      /* by attribute: u8 [rows] */
	KX_KEPT_SPACES,     /* struct kx_kept_space */
	KX_KEPT_PLACES,     /* struct kx_kept_place [rows] */
	KX_KEPT_MOMENT_FACTS,  /* struct kx_kept_moments [rows]; none: moments were not in the index */
	KX_KEPT_MOMENT_ROWS,   /* by space of the index: u32 the row that each of its rows is of, or KX_ANN_NO_ROW */
	KX_KEPT_MOMENT_ALONE,  /* by space of the index: u64, a bit for each of its rows */
	KX_KEPT_MOMENT_LOOSE,  /* u64, a bit a row */
};

struct kx_kept_head {
	uint64_t videos, moments, media_us, epoch; /* as totals have it */
	uint32_t rows, words, attributes, spaces;
};

struct kx_kept_facts {
	uint64_t generation, duration_us, media_us, moments;
};

struct kx_kept_class {
	uint64_t key, from, count;
};

struct kx_kept_space {
	uint32_t modality, dim;
	char name[KX_SPACE_MAX];
};

#define KX_KEPT_NO_SPACE UINT16_MAX
struct kx_kept_place {
	uint32_t index_row[KX_ANN_MODALITIES];
	uint16_t space[KX_ANN_MODALITIES];
};

struct kx_kept_moments {
	uint64_t moment_us, count;
};

/* The rows of what is written: order[new] is the old number. */
struct kx_kept_order {
	uint32_t *order; /* [count] */
	uint32_t *now;   /* [old rows] the new number, or KX_ANN_NO_ROW */
	uint32_t count, old_count;
};

/* Parts of the writing, each by those that own what is written. KX_ENOMEM; failures of the file show at its end. */
kx_status kx_columns_keep(const struct kx_columns *columns, const struct kx_kept_order *order, struct kx_kept_head *head,
			  struct kx_snapshot_writer *writer) KX_MUST_CHECK;
void kx_indexed_keep(const struct kx_ann *ann, const struct kx_kept_order *order, struct kx_kept_head *head,
		     struct kx_snapshot_writer *writer);
void kx_moments_keep(const struct kx_moments *moments, const struct kx_kept_order *order, struct kx_snapshot_writer *writer);

/* And back, into what is new and empty, with room for `more` rows that are put later. Columns, texts and words are brought in as
 * filters and hits ask for them. KX_ENOMEM; KX_ECORRUPT: the snapshot is damaged. */
kx_status kx_columns_restore(struct kx_columns *columns, struct kx_snapshot *snapshot, const struct kx_kept_head *head,
			     uint32_t more) KX_MUST_CHECK;
kx_status kx_indexed_restore(struct kx_ann *ann, struct kx_snapshot *snapshot, const struct kx_kept_head *head, uint32_t more)
	KX_MUST_CHECK;
/* KX_ENOTFOUND: it has no moments. */
kx_status kx_moments_restore(struct kx_moments *moments, struct kx_snapshot *snapshot, const struct kx_kept_head *head,
			     uint32_t more) KX_MUST_CHECK;

/* An array of `count` of `size` bytes. NULL: it is not there, and the snapshot is damaged; or count is 0. */
const void *kx_kept_array(struct kx_snapshot *snapshot, enum kx_kept_kind kind, uint32_t number, uint64_t count, size_t size);

#endif
