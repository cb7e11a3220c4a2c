/* Where the next page of an answer begins. Pure. Layer: record.
 *
 * Hits are in one total order (kx_hit_order() below), whoever holds them; a page begins behind the last hit of the one
 * before. So pages of several shards can be merged: each gets the same cursor, and whoever merges makes the next. */
#ifndef KX_RECORD_CURSOR_H
#define KX_RECORD_CURSOR_H

#include "common/record/similar.h"

struct kx_cursor {
	uint64_t fingerprint; /* of the query that it belongs to */
	uint64_t epoch;       /* of the store when the page was made; 0: not known */
	double score;         /* of the last hit */
	uint64_t moment_us;   /* its start, at KX_LEVEL_MOMENTS; else 0 */
	char *video_id;       /* owned */
};

/* What decides which hits there are and in what order: all of a query but k, cursor, recall, explain and what is told
 * of a hit. The same on every machine. */
uint64_t kx_similar_query_fingerprint(const struct kx_similar_query *query);

/* An opaque text of at most KX_QUERY_CURSOR_MAX characters that can stand in a URL; the caller frees. NULL: no memory. */
char *kx_cursor_encode(const struct kx_cursor *cursor);
/* KX_EINVAL, with a message for a person, when text is no cursor or belongs to another query. */
kx_status kx_cursor_decode(const char *text, uint64_t fingerprint, struct kx_cursor *ret,
			   struct kx_error *error) KX_MUST_CHECK;
void kx_cursor_done(struct kx_cursor *cursor);

/* Negative: a hit with this score, id and moment comes before the other. Better scores first, then ids, then moments. */
int kx_hit_order(double score_a, const char *id_a, uint64_t moment_a, double score_b, const char *id_b,
		 uint64_t moment_b);

#endif
