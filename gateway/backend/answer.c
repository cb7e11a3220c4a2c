#include <stdlib.h>

#include "gateway/backend/backend.h"

void kx_answer_done(struct kx_answer *answer)
{
	kx_query_reply_free(answer->reply);
	for (uint32_t i = 0; i < answer->failure_count; i++) {
		free(answer->failures[i].shard);
		free(answer->failures[i].message);
	}
	free(answer->failures);
	*answer = (struct kx_answer){0};
}
