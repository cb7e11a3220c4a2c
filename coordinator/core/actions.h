/* Making the actions of a step. Internal to coordinator/core. */
#ifndef KX_COORDINATOR_CORE_ACTIONS_H
#define KX_COORDINATOR_CORE_ACTIONS_H

#include "coordinator/core/core.h"

/* Each appends one action made of copies; KX_ENOMEM appends nothing. */
kx_status kx_actions_input(struct kx_core_actions *actions, const struct kx_input *input,
			   const struct kx_dead_letter *letter) KX_MUST_CHECK;
kx_status kx_actions_result(struct kx_core_actions *actions, const struct kx_result *result) KX_MUST_CHECK;
kx_status kx_actions_job(struct kx_core_actions *actions, const struct kx_job *job) KX_MUST_CHECK;

/* Deep copies; the caller frees with the record's free. NULL when out of memory. */
struct kx_input *kx_input_clone(const struct kx_input *from);

#endif
