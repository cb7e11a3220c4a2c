/* The names of our topics in a namespace. Layer: bus. */
#ifndef KX_BUS_TOPICS_H
#define KX_BUS_TOPICS_H

#define KX_NAMESPACE_MAX 64

enum kx_topic { KX_TOPIC_JOBS, KX_TOPIC_RESULTS, KX_TOPIC_RUNS, KX_TOPIC_DEAD, KX_TOPIC_COUNT };

struct kx_topics {
	char name[KX_TOPIC_COUNT][KX_NAMESPACE_MAX + 16]; /* "<ns>.jobs", "<ns>.results", "<ns>.runs", "<ns>.dead" */
};

/* ns: letters, digits, '-' and '_', at most KX_NAMESPACE_MAX; asserted (config checked it). */
void kx_topics_init(struct kx_topics *topics, const char *ns);

#endif
