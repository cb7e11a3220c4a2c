/* "What is like this?", and one answer to it. Travel inside queries and replies. Layer: record. */
#ifndef KX_RECORD_SIMILAR_H
#define KX_RECORD_SIMILAR_H

#include "common/record/record.h"

#define KX_QUERY_K_MAX 10000u
#define KX_QUERY_MOMENTS_MAX 65536u
#define KX_QUERY_FILTER_BYTES_MAX (1u << 20) /* that travel; the language allows less, and says so better */
#define KX_QUERY_CURSOR_MAX 16384u
#define KX_QUERY_NOT_IDS_MAX 10000u
#define KX_QUERY_CLAUSES_MAX 1024u           /* told of one hit */

struct kx_query_vector {
	enum kx_modality modality;
	char *space;
	uint32_t moment; /* index, where it is one moment's */
	uint32_t dim;
	float *values;   /* [dim] */
};

/* Of which only the best hit is told. */
enum kx_query_group { KX_GROUP_NONE, KX_GROUP_SOURCE, KX_GROUP_DUPLICATES };

/* What k counts. */
enum kx_query_level { KX_LEVEL_VIDEOS, KX_LEVEL_MOMENTS };

/* Zeroed memory plus video_id or vectors, k and weights is a query; the rest then has no effect. */
struct kx_similar_query {
	char *video_id;                  /* or "" with vectors */
	uint32_t vector_count;           /* whole video, at most one a modality */
	struct kx_query_vector *vectors;
	uint32_t moment_count;           /* for alignment */
	struct kx_query_vector *moments;
	uint64_t moment_us;              /* the grid of these moments; 0 when there are none */
	uint32_t k;
	double weight_visual;
	double weight_audio;
	bool with_moments;
	char *filter;                    /* text of the filter language; "": every video */
	bool has_min_score;
	double min_score;                /* worse hits are left out */
	char *cursor;                    /* `next` of the page before; "": the first */
	enum kx_query_group group;
	double diversity;                /* 0 off .. 1: how much being unlike the better hits counts */
	uint32_t not_id_count;
	char **not_ids;                  /* not to be found; one that is not indexed is nothing */
	enum kx_query_level level;
	double recall;                   /* to be promised, 0 < recall <= 1; 0: the shard's default, 1: exact */
	bool explain;
};

struct kx_moment_match {
	uint64_t ours_us;
	uint64_t theirs_us;
	double score;
	double visual;
	double audio;
};

/* How one clause of the filter went. */
struct kx_filter_clause {
	char *clause; /* canonical form */
	bool passed;
	char *value;  /* that the video has; "": none */
};

struct kx_similar_hit {
	char *video_id;
	char *title;
	double score;  /* weighted mean of cosines over the modalities that both sides have, in [-1, 1] */
	double visual; /* what picture gave of it; visual + audio = score */
	double audio;
	bool has_visual;
	bool has_audio;
	uint64_t duration_us;
	uint32_t match_count;
	struct kx_moment_match *matches; /* best first */
	char *source;
	uint32_t label_count;
	char **labels;
	char *group_key;                 /* where hits are grouped; "": alone in its group */
	uint32_t clause_count;
	struct kx_filter_clause *clauses; /* where asked to explain */
	bool has_moment;                 /* at KX_LEVEL_MOMENTS: the span that scored */
	uint64_t moment_start_us;
	uint64_t moment_end_us;
};

/* What a search looked at. */
struct kx_search_work {
	uint64_t rows;     /* indexed: videos, or moments at their level */
	uint64_t matching; /* let through by filter and not_ids */
	uint64_t cells;    /* scanned */
	uint64_t codes;    /* estimated */
	uint64_t refined;  /* full vectors compared */
	uint64_t took_us;
};

struct kx_similar_answer {
	kx_status status; /* not KX_OK: only message is set */
	char *message;
	uint32_t hit_count;
	struct kx_similar_hit *hits; /* best first; with diversity in the order of choice */
	char *next;                  /* cursor of the page behind; "": there is none */
	bool exact;                  /* nothing could be missing */
	double recall;               /* promised: 1 where exact */
	struct kx_search_work work;
	bool partial;                /* a shard that was asked did not answer */
	uint32_t shards_asked;
	uint32_t shards_answered;
	bool changed;                /* the store changed since the page before */
};

/* Free what they point to and zero them; for owners of a struct that stands in one of theirs. */
void kx_similar_query_done(struct kx_similar_query *query);
void kx_similar_hit_done(struct kx_similar_hit *hit);
void kx_similar_answer_done(struct kx_similar_answer *answer);

#endif
