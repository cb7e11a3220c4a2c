/* What handlers share: asking, arguments, errors. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "gateway/json/problem.h"
#include "gateway/run/internal.h"

void kx_respond_problem(struct kx_http_response *response, unsigned code, const char *detail)
{
	if (response->fd >= 0)
		kx_http_response_done(response);
	response->code = code;
	response->type = KX_PROBLEM_TYPE;
	response->header_count = 0;
	if (kx_problem_write(code, detail, &response->body) != KX_OK)
		kx_buf_clear(&response->body); /* no memory: the code alone has to do */
	if (code == 503)
		kx_http_response_header(response, "Retry-After", "1");
}

kx_status kx_turn_ask(struct kx_turn *turn, const struct kx_query_request *request, struct kx_answer *ret)
{
	const struct kx_backend *backend = &turn->gateway->options.backend;
	struct kx_answer answer = {0};
	kx_status status = backend->ask(backend->ctx, request, turn->request->deadline_us, &answer, &turn->error);

	if (status == KX_OK && answer.reply->status != KX_OK)
		status = kx_error_set(&turn->error, answer.reply->status, KX_ERROR_POISON, "%s", answer.reply->message);
	if (status != KX_OK) {
		kx_answer_done(&answer);
		return status;
	}
	if (answer.answered < answer.asked)
		atomic_fetch_add(&turn->gateway->metrics.partials, 1);
	*ret = answer;
	return KX_OK;
}

kx_status kx_turn_args(struct kx_turn *turn, const char *const *names)
{
	const struct kx_http_target *target = &turn->request->target;

	for (size_t i = 0; i < target->arg_count; i++) {
		bool known = false;

		for (size_t j = 0; names[j] != NULL && !known; j++)
			known = strcmp(target->args[i].name, names[j]) == 0;
		if (!known)
			return kx_error_set(&turn->error, KX_EINVAL, KX_ERROR_POISON, "%.64s: there is no such argument here",
					    target->args[i].name);
	}
	return KX_OK;
}

kx_status kx_turn_bool(struct kx_turn *turn, const char *name, bool *ret)
{
	const char *text = kx_http_target_arg(&turn->request->target, name);

	if (text == NULL || kx_decode_bool(text, ret) == KX_OK)
		return KX_OK;
	return kx_error_set(&turn->error, KX_EINVAL, KX_ERROR_POISON, "%s: must be true or false", name);
}

kx_status kx_turn_u32(struct kx_turn *turn, const char *name, uint32_t min, uint32_t max, uint32_t *ret)
{
	const char *text = kx_http_target_arg(&turn->request->target, name);
	uint64_t value;

	if (text == NULL)
		return KX_OK;
	if (kx_parse_u64(text, &value) != KX_OK || value < min || value > max)
		return kx_error_set(&turn->error, KX_EINVAL, KX_ERROR_POISON,
				    "%s: must be a whole number from %" PRIu32 " to %" PRIu32, name, min, max);
	*ret = (uint32_t)value;
	return KX_OK;
}

kx_status kx_turn_video(struct kx_turn *turn, bool with_moments, struct kx_answer *ret)
{
	struct kx_query_request request = {
		.kind = KX_QUERY_VIDEO, .video_id = (char *)(uintptr_t)turn->id, .with_moments = with_moments};

	if (strlen(turn->id) > KX_ID_MAX)
		return kx_error_set(&turn->error, KX_ENOTFOUND, KX_ERROR_POISON, "no id is longer than %u bytes", KX_ID_MAX);
	kx_status status = kx_turn_ask(turn, &request, ret);
	if (status != KX_OK || ret->reply->video != NULL)
		return status;
	kx_answer_done(ret);
	return kx_error_set(&turn->error, KX_ENOTFOUND, KX_ERROR_POISON, "no video \"%.300s\" is indexed", turn->id);
}
