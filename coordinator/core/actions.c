#include "coordinator/core/actions.h"

#include <stdlib.h>

/* A copy goes by the wire form: it exists, it is tested, and no second list of every field is needed here. */
#define DEFINE_CLONE(name)                                                          \
	static struct name *name##_copy(const struct name *from)                    \
	{                                                                           \
		struct kx_buf bytes = {.max = KX_RECORD_MAX};                       \
		struct name *copy = NULL;                                           \
		if (name##_pack(from, &bytes) == KX_OK &&                           \
		    name##_unpack(bytes.data, bytes.len, &copy, NULL) != KX_OK)     \
			copy = NULL;                                                \
		kx_buf_done(&bytes);                                                \
		return copy;                                                        \
	}

DEFINE_CLONE(kx_input)
DEFINE_CLONE(kx_dead_letter)
DEFINE_CLONE(kx_result)
DEFINE_CLONE(kx_job)

struct kx_input *kx_input_clone(const struct kx_input *from)
{
	return kx_input_copy(from);
}

static struct kx_core_action *append(struct kx_core_actions *actions, enum kx_core_action_kind kind)
{
	if (actions->count == actions->cap) {
		size_t cap = actions->cap != 0 ? 2 * actions->cap : 16;
		struct kx_core_action *grown = realloc(actions->items, cap * sizeof(*grown));
		if (grown == NULL)
			return NULL;
		actions->items = grown;
		actions->cap = cap;
	}
	struct kx_core_action *action = &actions->items[actions->count];
	*action = (struct kx_core_action){.kind = kind};
	return action;
}

kx_status kx_actions_input(struct kx_core_actions *actions, const struct kx_input *input,
			   const struct kx_dead_letter *letter)
{
	struct kx_core_action *action = append(actions, KX_CORE_PUT_INPUT);
	if (action == NULL || (action->input = kx_input_copy(input)) == NULL)
		return KX_ENOMEM;
	if (letter != NULL && (action->letter = kx_dead_letter_copy(letter)) == NULL) {
		kx_input_free(action->input);
		return KX_ENOMEM;
	}
	actions->count++;
	return KX_OK;
}

kx_status kx_actions_result(struct kx_core_actions *actions, const struct kx_result *result)
{
	struct kx_core_action *action = append(actions, KX_CORE_PUBLISH_RESULT);
	if (action == NULL || (action->result = kx_result_copy(result)) == NULL)
		return KX_ENOMEM;
	actions->count++;
	return KX_OK;
}

kx_status kx_actions_job(struct kx_core_actions *actions, const struct kx_job *job)
{
	struct kx_core_action *action = append(actions, KX_CORE_PUBLISH_JOB);
	if (action == NULL || (action->job = kx_job_copy(job)) == NULL)
		return KX_ENOMEM;
	actions->count++;
	return KX_OK;
}

void kx_core_actions_clear(struct kx_core_actions *actions)
{
	for (size_t i = 0; i < actions->count; i++) {
		kx_input_free(actions->items[i].input);
		kx_dead_letter_free(actions->items[i].letter);
		kx_result_free(actions->items[i].result);
		kx_job_free(actions->items[i].job);
	}
	actions->count = 0;
}

void kx_core_actions_done(struct kx_core_actions *actions)
{
	kx_core_actions_clear(actions);
	free(actions->items);
	*actions = (struct kx_core_actions){0};
}
