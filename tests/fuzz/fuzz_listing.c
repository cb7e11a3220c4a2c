/* A page of a bucket's listing, as XML of any kind. The reader of pages is static, so it is compiled in here. */
#include "common/fetch/list.c" // NOLINT(bugprone-suspicious-include)

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct kx_fetch_list *list = calloc(1, sizeof(*list));
	struct kx_buf page = {.max = PAGE_BYTES_MAX};

	FUZZ_CHECK(list && kx_buf_append(&page, bytes, len) == KX_OK);
	list->text.max = TEXT_MAX;
	list->url = kx_strdup("s3://bucket/");
	list->bucket = kx_strdup("bucket");
	list->prefix = kx_strdup("");
	list->page = calloc(PAGE_OBJECTS_MAX, sizeof(*list->page));
	FUZZ_CHECK(list->url && list->bucket && list->prefix && list->page);
	if (parse(list, &page) == KX_OK) {
		struct kx_fetch_object object = {0};

		list->next_page = NULL; /* there is no server to ask */
		while (kx_fetch_list_next(list, &object, NULL) == KX_OK) {
			FUZZ_CHECK(kx_str_starts(object.url, "s3://bucket/") && object.name[0] != '\0');
			kx_fetch_object_done(&object);
		}
	}
	kx_buf_done(&page);
	kx_fetch_list_free(list);
	return 0;
}
