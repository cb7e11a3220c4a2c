/* A filter: what is taken prints to a text that is taken and prints the same, evaluates to the rows that match one by one,
 * and what is refused points into the text. */
#include <stdlib.h>
#include <string.h>

#include "shard/query/columns.h"
#include "tests/fuzz/fuzz.h"

#define NOW 1795748520.0
#define ROWS 5u

static const char *const class_names[] = {"cat", "ice hockey", "dog"};

static void put_rows(struct kx_columns *columns)
{
	char *labels[] = {"cat", "Big Dog"};
	uint32_t ids[] = {0, 2};
	float scores[] = {0.75f, 0.25f};

	for (uint32_t row = 0; row < ROWS; row++) {
		struct kx_attribute attributes[] = {
			{.name = "live", .type = KX_ATTRIBUTE_BOOL, .flag = row % 2},
			{.name = "season", .type = KX_ATTRIBUTE_NUMBER, .number = row},
			{.name = "team", .type = KX_ATTRIBUTE_TEXT, .text = labels[row % 2]}};
		char id[] = {'v', (char)('0' + row), '\0'};
		struct kx_video_record record = {
			.stored_at_ms = 1795000000000u + row * 86400000u,
			.info = {.title = row ? "a title" : "", .source = "/films/a.mp4", .labels = labels, .label_count = row % 3,
				 .width = row * 100, .extras = {.language = row % 2 ? "en" : "", .attribute_count = row % 4,
								.attributes = attributes}},
			.result = {.video_id = id, .duration_us = row * 1000000u, .modality_count = 1,
				   .modalities = {{.modality = KX_VISUAL, .class_count = row % 3, .class_ids = ids,
						   .class_scores = scores}}}};

		FUZZ_CHECK(kx_columns_put(columns, row, &record) == KX_OK);
	}
}

static struct kx_columns *columns;

static void leave(void)
{
	kx_columns_free(columns);
}

static void enter(void)
{
	if (columns)
		return;
	FUZZ_CHECK(kx_columns_new(&columns) == KX_OK);
	FUZZ_CHECK(kx_attributes_set_classes(columns->attributes, &(struct kx_class_names){KX_VISUAL, 3, class_names}) == KX_OK);
	put_rows(columns);
	atexit(leave);
}

static void check_rows(const struct kx_filter *filter)
{
	struct kx_bitmap rows = {0};

	FUZZ_CHECK(kx_filter_evaluate(filter, columns, &rows) == KX_OK);
	for (uint32_t row = 0; row < ROWS; row++) {
		bool matches = false;

		FUZZ_CHECK(kx_filter_matches(filter->root, columns, row, &matches) == KX_OK);
		FUZZ_CHECK(matches == kx_bitmap_has(&rows, row));
	}
	kx_bitmap_done(&rows);
}

static void check_taken(const struct kx_filter *filter)
{
	KX_CLEANUP(kx_filter_cleanup) struct kx_filter *again = NULL;

	if (strlen(filter->canonical) <= KX_FILTER_BYTES_MAX) {
		FUZZ_CHECK(kx_filter_parse(filter->canonical, columns->attributes, NOW, &again, NULL, NULL) == KX_OK);
		FUZZ_CHECK(strcmp(filter->canonical, again->canonical) == 0);
	}
	check_rows(filter);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	KX_CLEANUP(kx_filter_cleanup) struct kx_filter *filter = NULL;
	KX_CLEANUP(kx_cleanup_free) char *text = malloc(len + 1);
	struct kx_error error = {0};
	size_t offset = 0;
	kx_status status;

	enter();
	FUZZ_CHECK(text);
	if (len)
		memcpy(text, bytes, len);
	text[len] = '\0';
	status = kx_filter_parse(text, columns->attributes, NOW, &filter, &offset, &error);
	if (status == KX_OK) {
		check_taken(filter);
		return 0;
	}
	FUZZ_CHECK(status == KX_EINVAL || status == KX_ETOOBIG);
	FUZZ_CHECK(error.message[0] && offset <= strlen(text));
	return 0;
}
