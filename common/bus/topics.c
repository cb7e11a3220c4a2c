#include "common/bus/topics.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "common/base/macros.h"

static const char *const suffixes[KX_TOPIC_COUNT] = {
	[KX_TOPIC_JOBS] = "jobs",
	[KX_TOPIC_RESULTS] = "results",
	[KX_TOPIC_RUNS] = "runs",
	[KX_TOPIC_DEAD] = "dead",
};

void kx_topics_init(struct kx_topics *topics, const char *ns)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
	size_t len = strlen(ns);

	assert(len > 0 && len <= KX_NAMESPACE_MAX && strspn(ns, letters) == len);
	for (size_t i = 0; i < KX_ARRAY_LEN(suffixes); i++)
		snprintf(topics->name[i], sizeof(topics->name[i]), "%.*s.%s", KX_NAMESPACE_MAX, ns, suffixes[i]);
	(void)letters;
	(void)len;
}
