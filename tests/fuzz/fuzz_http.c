/* What a stranger can say over HTTP, once the library has taken its lines apart: a target, a range, a body. The first byte
 * says which. A body that is taken for a query is one that a shard takes. */
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "gateway/http/range.h"
#include "gateway/http/target.h"
#include "gateway/json/base64.h"
#include "gateway/json/decode.h"
#include "gateway/json/encode.h"
#include "gateway/json/problem.h"
#include "tests/fuzz/fuzz.h"

static const struct kx_decode_limits limits = {.k_max = 1000, .batch_max = 1000};

/* Every error can be told. */
static void tell(kx_status status, const struct kx_error *error)
{
	struct kx_buf out = {.max = 1 << 16};

	FUZZ_CHECK(status == KX_EINVAL || status == KX_ETOOBIG);
	FUZZ_CHECK(error->status == status && error->message[0] != '\0');
	FUZZ_CHECK(kx_problem_write(kx_problem_code(status), error->message, &out) == KX_OK);
	FUZZ_CHECK(kx_utf8_valid((const char *)out.data, out.len));
	kx_buf_done(&out);
}

static void check_query(const struct kx_query_request *request)
{
	KX_CLEANUP(kx_query_request_cleanup) struct kx_query_request *again = NULL;
	struct kx_buf packed = {.max = KX_RECORD_MAX};
	struct kx_error error = {0};

	FUZZ_CHECK(kx_query_request_pack(request, &packed) == KX_OK);
	FUZZ_CHECK(kx_query_request_unpack(packed.data, packed.len, &again, &error) == KX_OK);
	kx_buf_done(&packed);
}

static void read_body(enum kx_body body, const char *text, size_t len)
{
	KX_CLEANUP(kx_query_request_cleanup) struct kx_query_request *request = NULL;
	struct kx_error error = {0};
	kx_status status = kx_decode_body(body, text, len, &limits, &request, &error);

	if (status == KX_OK)
		check_query(request);
	else
		tell(status, &error);
}

static void read_args(const struct kx_http_target *target)
{
	KX_CLEANUP(kx_query_request_cleanup) struct kx_query_request *request = NULL;
	struct kx_decode_arg args[KX_TARGET_ARGS_MAX];
	struct kx_error error = {0};

	for (size_t i = 0; i < target->arg_count; i++)
		args[i] = (struct kx_decode_arg){target->args[i].name, target->args[i].value};
	kx_status status = kx_decode_similar_args(args, target->arg_count, &limits, &request, &error);
	if (status == KX_OK)
		check_query(request);
	else
		tell(status, &error);
}

static void read_target(const char *text)
{
	struct kx_http_target target = {0};
	struct kx_error error = {0};
	kx_status status = kx_http_target_parse(text, &target, &error);

	if (status != KX_OK) {
		tell(status, &error);
		return;
	}
	FUZZ_CHECK(target.segment_count >= 1 && target.segment_count <= KX_TARGET_SEGMENTS_MAX);
	for (size_t i = 0; i < target.segment_count; i++)
		FUZZ_CHECK(kx_utf8_valid(target.segments[i], strlen(target.segments[i])));
	for (size_t i = 0; i < target.arg_count; i++) {
		FUZZ_CHECK(kx_utf8_valid(target.args[i].value, strlen(target.args[i].value)));
		FUZZ_CHECK(kx_http_target_arg(&target, target.args[i].name) == target.args[i].value);
	}
	read_args(&target);
	kx_http_target_done(&target);
}

static void read_range(struct fuzz_input in)
{
	uint64_t size = fuzz_number(&in), first = 0, len = 0;
	char *text = kx_strndup((const char *)in.bytes, in.len);

	FUZZ_CHECK(text);
	if (kx_http_range(text, size, &first, &len) == KX_RANGE_PART)
		FUZZ_CHECK(len > 0 && first < size && len <= size - first);
	free(text);
}

static void read_base64(const char *text)
{
	uint8_t *bytes = NULL;
	size_t len = 0;
	kx_status status = kx_base64_decode(text, 4096, &bytes, &len);

	FUZZ_CHECK(status == KX_OK || status == KX_EINVAL || status == KX_ETOOBIG);
	if (status == KX_OK)
		FUZZ_CHECK(len <= 4096 && len <= strlen(text) / 4 * 3);
	free(bytes);
}

/* Whatever a store holds becomes text that is UTF-8. */
static void write_text(const char *text)
{
	struct kx_buf out = {.max = 1 << 20};
	struct kx_json json = {.out = &out};

	kx_json_text(&json, NULL, text);
	FUZZ_CHECK(json.status == KX_OK || json.status == KX_ETOOBIG);
	if (json.status == KX_OK)
		FUZZ_CHECK(out.len >= 2 && kx_utf8_valid((const char *)out.data, out.len));
	kx_buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct fuzz_input in = {bytes, len};
	uint8_t which = fuzz_u8(&in) % 7u;
	KX_CLEANUP(kx_cleanup_free) char *text = kx_strndup((const char *)in.bytes, in.len);

	FUZZ_CHECK(text);
	switch (which) {
	case 0:
		read_body(KX_BODY_SIMILAR, (const char *)in.bytes, in.len);
		break;
	case 1:
		read_body(KX_BODY_SEARCH, (const char *)in.bytes, in.len);
		break;
	case 2:
		read_body(KX_BODY_VIDEOS, (const char *)in.bytes, in.len);
		break;
	case 3:
		read_target(text);
		break;
	case 4:
		read_range(in);
		break;
	case 5:
		read_base64(text);
		break;
	default:
		write_text(text);
	}
	return 0;
}
