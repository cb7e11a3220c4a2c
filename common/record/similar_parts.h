/* Conversions of similar queries and their answers. Internal to common/record. Layer: record. */
#ifndef KX_RECORD_SIMILAR_PARTS_H
#define KX_RECORD_SIMILAR_PARTS_H

#include "common/record/similar.h"
#include "common/record/support.h"
#include "proto/query.pb-c.h"

Kinodex__V1__SimilarQuery *kx_similar_query_write(struct kx_writer *w, const struct kx_similar_query *query);
void kx_similar_query_read(struct kx_reader *r, const Kinodex__V1__SimilarQuery *m, struct kx_similar_query *query);

/* At most max of them. */
Kinodex__V1__QueryVector **kx_query_vectors_write(struct kx_writer *w, const struct kx_query_vector *vectors,
						  uint32_t count);
struct kx_query_vector *kx_query_vectors_read(struct kx_reader *r, const char *field,
					      Kinodex__V1__QueryVector *const *list, size_t count, size_t max,
					      uint32_t *ret_count);
void kx_query_vectors_free(struct kx_query_vector *vectors, uint32_t count);

/* A QueryReply holds flat what a SimilarReply holds: both go through these. */
Kinodex__V1__SimilarHit **kx_similar_hits_write(struct kx_writer *w, const struct kx_similar_answer *answer);
void kx_similar_hits_read(struct kx_reader *r, Kinodex__V1__SimilarHit *const *hits, size_t count,
			  struct kx_similar_answer *answer);
Kinodex__V1__SearchWork *kx_search_work_write(struct kx_writer *w, const struct kx_search_work *work);
void kx_search_work_read(const Kinodex__V1__SearchWork *m, struct kx_search_work *work);
kx_status kx_read_status(struct kx_reader *r, int32_t value);

Kinodex__V1__SimilarReply *kx_similar_answer_write(struct kx_writer *w, const struct kx_similar_answer *answer);
void kx_similar_answer_read(struct kx_reader *r, const Kinodex__V1__SimilarReply *m,
			    struct kx_similar_answer *answer);

#endif
