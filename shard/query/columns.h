/* What filters ask about, by row, in columns. Internal to shard/query; the mirror owns one and its lock.
 *
 * Numbers are an array a column (NaN: absent), texts that repeat are numbers of shared words, labels and classes have
 * inverted lists beside. A value of a catalogue's attribute that has another type than the attribute is not kept. */
#ifndef KX_SHARD_QUERY_COLUMNS_H
#define KX_SHARD_QUERY_COLUMNS_H

#include "common/record/video.h"
#include "shard/query/bitmap.h"
#include "shard/query/filter.h"
#include "shard/query/words.h"

struct kx_class_score {
	uint64_t key;
	float score;
};

/* What has no fixed size. */
struct kx_column_row {
	bool live;
	char *id;
	char *title;
	char *source;
	uint32_t label_count;
	uint32_t *labels; /* words */
	uint32_t class_count;
	struct kx_class_score *classes;
};

/* One attribute; only the array of its type is there, and only once a row has a value. */
struct kx_column {
	double *numbers;
	uint32_t *words;
	uint8_t *flags; /* 0 absent, 1 false, 2 true */
	uint64_t videos; /* that have it */
};

struct kx_class_rows {
	uint64_t key;
	uint32_t count, cap;
	uint32_t *rows; /* rising */
};

/* What stands in a snapshot and not here yet, see columns_kept.c. */
struct kx_columns_kept;

struct kx_columns {
	struct kx_attributes *attributes; /* owned */
	uint32_t rows;                    /* room in every array */
	struct kx_column_row *list;
	struct kx_bitmap live;
	struct kx_words words;
	struct kx_column *columns;        /* by number of the attribute */
	uint32_t column_count;
	void *classes;                    /* tree of struct kx_class_rows, see tsearch(3) */
	bool told_type;                   /* once in a life: a value was left out */
	struct kx_columns_kept *kept;     /* NULL: everything is here */
};

kx_status kx_columns_new(struct kx_columns **ret) KX_MUST_CHECK;
void kx_columns_free(struct kx_columns *columns); /* NULL is nothing */

/* Adds or replaces a row. KX_ENOMEM: the row is then not there. */
kx_status kx_columns_put(struct kx_columns *columns, uint32_t row, const struct kx_video_record *video) KX_MUST_CHECK;
void kx_columns_remove(struct kx_columns *columns, uint32_t row);
/* NULL: of none. */
kx_status kx_columns_set_duplicate_of(struct kx_columns *columns, uint32_t row, const char *id) KX_MUST_CHECK;

/* [*ret_count] of a row that is there. */
const uint32_t *kx_columns_labels(const struct kx_columns *columns, uint32_t row, uint32_t *ret_count);
const struct kx_class_score *kx_columns_classes(const struct kx_columns *columns, uint32_t row, uint32_t *ret_count);

/* --- Of columns that are in part in a snapshot; calls need the columns alone. Without one they are nothing --------- */

/* Brings in what these columns are of. KX_ENOMEM; KX_ECORRUPT: the snapshot is damaged. */
kx_status kx_columns_need(const struct kx_columns *columns, const struct kx_filter *filter) KX_MUST_CHECK;
kx_status kx_columns_need_words(const struct kx_columns *columns) KX_MUST_CHECK;
/* The row is none of the snapshot's any more. false: it never was. */
bool kx_columns_hide(struct kx_columns *columns, uint32_t row);
/* Rows of the snapshot that have a word as a label, or a class. Some may be hidden. */
const uint32_t *kx_columns_kept_label(const struct kx_columns *columns, uint32_t fold, uint32_t *ret_count);
const uint32_t *kx_columns_kept_class(const struct kx_columns *columns, uint64_t key, const float **ret_scores,
				      uint32_t *ret_count); /* scores: [*ret_count], of each row */
uint32_t kx_columns_kept_rows(const struct kx_columns *columns); /* rows that are the snapshot's */
/* Of one of its rows, where it is damaged NULL, and none. */
const char *kx_columns_kept_text(const struct kx_columns *columns, uint32_t attribute, uint32_t row);
const uint32_t *kx_columns_kept_labels(const struct kx_columns *columns, uint32_t row, uint32_t *ret_count);
const struct kx_class_score *kx_columns_kept_classes(const struct kx_columns *columns, uint32_t row, uint32_t *ret_count);
void kx_columns_kept_free(struct kx_columns *columns);

/* NULL where no video of the class is there. */
const struct kx_class_rows *kx_columns_class(const struct kx_columns *columns, uint64_t key);
/* The best score of the clause's classes; 0 where none was kept. */
double kx_columns_class_score(const struct kx_columns *columns, const struct kx_filter_node *clause, uint32_t row);
double kx_columns_number(const struct kx_columns *columns, uint32_t attribute, uint32_t row); /* NaN: absent */
/* "" where it is absent; of the attributes that have one text a video. */
const char *kx_columns_text(const struct kx_columns *columns, uint32_t attribute, uint32_t row);
bool kx_columns_has(const struct kx_columns *columns, uint32_t attribute, uint32_t row);

/* Rows that pass, into *ret (any before). */
kx_status kx_filter_evaluate(const struct kx_filter *filter, const struct kx_columns *columns,
			     struct kx_bitmap *ret) KX_MUST_CHECK;
/* The same for one row that is there. */
kx_status kx_filter_matches(const struct kx_filter_node *node, const struct kx_columns *columns, uint32_t row,
			    bool *ret) KX_MUST_CHECK;
/* What a row has of what a clause asks, as a person reads it; "" for nothing. The caller frees; NULL: no memory. */
char *kx_filter_value_of(const struct kx_filter_node *clause, const struct kx_columns *columns, uint32_t row);

/* What there is to ask about. The caller frees with kx_query_reply_free(). */
kx_status kx_columns_schema(const struct kx_columns *columns, struct kx_query_reply *reply) KX_MUST_CHECK;

#endif
