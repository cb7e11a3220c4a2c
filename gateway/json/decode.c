#include "gateway/json/decode.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "gateway/json/base64.h"
#include "gateway/json/fields.h"

#define DEFAULT_K 10u
#define DEFAULT_VISUAL 0.6
#define DEFAULT_AUDIO 0.4

/* Behind the quote that ends the text which begins at i; len when none does. */
static size_t skip_text(const char *text, size_t i, size_t len)
{
	while (i < len) {
		const char *quote = memchr(text + i, '"', len - i);
		size_t end = quote != NULL ? (size_t)(quote - text) : len;
		const char *escape = memchr(text + i, '\\', end - i);

		if (escape == NULL)
			return end < len ? end + 1 : len;
		i = (size_t)(escape - text) + 2;
	}
	return len;
}

/* Brackets in brackets, without building anything: a parser that recurses must not be led deep. */
static bool is_too_deep(const char *text, size_t len)
{
	unsigned depth = 0;

	for (size_t i = 0; i < len;) {
		char c = text[i++];

		if (c == '"')
			i = skip_text(text, i, len);
		else if ((c == '[' || c == '{') && ++depth > KX_JSON_DEPTH_MAX)
			return true;
		else if (c == ']' || c == '}')
			depth -= depth > 0;
	}
	return false;
}

static kx_status parse(const char *text, size_t len, json_t **ret, struct kx_error *error)
{
	json_error_t why;

	if (is_too_deep(text, len))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "the body is nested deeper than %u levels",
				    KX_JSON_DEPTH_MAX);
	*ret = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
	if (*ret == NULL)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "the body is no JSON: line %d, column %d: %s",
				    why.line, why.column, why.text);
	if (!json_is_object(*ret)) {
		json_decref(KX_STEAL(*ret));
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "the body is no JSON object");
	}
	return KX_OK;
}

static void start_query(struct kx_similar_query *query)
{
	*query = (struct kx_similar_query){
		.k = DEFAULT_K, .weight_visual = DEFAULT_VISUAL, .weight_audio = DEFAULT_AUDIO};
}

/* Absent strings are "" in a record. */
static void finish_query(struct kx_fields *fields, struct kx_similar_query *query)
{
	if (query->weight_visual + query->weight_audio <= 0)
		kx_fields_fail(fields, "weights", KX_EINVAL, "one of them must be above 0");
	if (query->video_id == NULL && query->vector_count == 0)
		kx_fields_fail(fields, NULL, KX_EINVAL, "neither an id nor vectors to compare with");
	char **texts[] = {&query->video_id, &query->filter, &query->cursor};
	for (size_t i = 0; i < KX_ARRAY_LEN(texts); i++)
		if (*texts[i] == NULL && kx_str_set(texts[i], "") != KX_OK)
			kx_fields_fail(fields, NULL, KX_ENOMEM, "out of memory");
}

static void read_values(struct kx_fields *fields, json_t *list, struct kx_query_vector *vector)
{
	size_t count = json_array_size(list);

	if (!json_is_array(list) || count < 1 || count > KX_DIM_MAX) {
		kx_fields_fail(fields, "values", KX_EINVAL, "must be a list of 1 to 4096 numbers");
		return;
	}
	vector->values = malloc(count * sizeof(*vector->values));
	if (vector->values == NULL) {
		kx_fields_fail(fields, NULL, KX_ENOMEM, "out of memory");
		return;
	}
	vector->dim = (uint32_t)count;
	for (size_t i = 0; i < count; i++) {
		json_t *value = json_array_get(list, i);
		float number = json_is_number(value) ? (float)json_number_value(value) : NAN;

		if (!isfinite(number)) {
			kx_fields_fail(fields, "values", KX_EINVAL, "must hold numbers that a float can hold, and nothing else");
			return;
		}
		vector->values[i] = number;
	}
}

static void read_base64(struct kx_fields *fields, const char *text, struct kx_query_vector *vector)
{
	size_t len = 0;
	kx_status status = kx_base64_decode(text, KX_DIM_MAX * sizeof(float), (uint8_t **)&vector->values, &len);

	if (status == KX_ENOMEM)
		kx_fields_fail(fields, NULL, status, "out of memory");
	else if (status != KX_OK || len == 0 || len % sizeof(float) != 0)
		kx_fields_fail(fields, "f32", KX_EINVAL, "must be base64 of 1 to 4096 little-endian floats");
	if (fields->status != KX_OK)
		return;
	vector->dim = (uint32_t)(len / sizeof(float));
	for (uint32_t i = 0; i < vector->dim; i++)
		if (!isfinite(vector->values[i]))
			kx_fields_fail(fields, "f32", KX_EINVAL, "holds a value that is no number");
}

static void read_vector(struct kx_fields *fields, struct kx_query_vector *vector)
{
	static const char *const modalities[] = {"", "visual", "audio", NULL};
	json_t *values = kx_fields_take(fields, "values");
	const char *packed = kx_fields_text(fields, "f32", 1, 8 * KX_DIM_MAX);
	const char *space = kx_fields_text(fields, "space", 1, KX_SPACE_MAX - 1);
	int modality = 0;

	kx_fields_choice(fields, "modality", modalities, &modality);
	vector->modality = (enum kx_modality)modality;
	if (modality == 0)
		kx_fields_fail(fields, "modality", KX_EINVAL, "is missing: visual or audio");
	if (space == NULL)
		kx_fields_fail(fields, "space", KX_EINVAL, "is missing: which embedding space the vector is of");
	else if (kx_str_set(&vector->space, space) != KX_OK)
		kx_fields_fail(fields, NULL, KX_ENOMEM, "out of memory");
	if ((values != NULL) == (packed != NULL))
		kx_fields_fail(fields, NULL, KX_EINVAL, "a vector has either values or f32");
	if (fields->status != KX_OK)
		return;
	if (values != NULL)
		read_values(fields, values, vector);
	else
		read_base64(fields, packed, vector);
}

/* Lists of objects: each is read with its own set of fields. */
static void read_vectors(struct kx_fields *fields, struct kx_similar_query *query)
{
	json_t *list = kx_fields_list(fields, "vectors", 1, 2);
	size_t count = json_array_size(list);

	if (list == NULL)
		return;
	query->vectors = calloc(count, sizeof(*query->vectors));
	if (query->vectors == NULL) {
		kx_fields_fail(fields, NULL, KX_ENOMEM, "out of memory");
		return;
	}
	for (size_t i = 0; i < count && fields->status == KX_OK; i++) {
		struct kx_fields item;

		if (!kx_fields_enter(fields, "vectors", i, json_array_get(list, i), &item))
			return;
		query->vector_count++;
		read_vector(&item, &query->vectors[i]);
		kx_fields_leave(&item);
	}
	if (fields->status == KX_OK && count == 2 && query->vectors[0].modality == query->vectors[1].modality)
		kx_fields_fail(fields, "vectors", KX_EINVAL, "holds two of one modality");
}

static void read_weights(struct kx_fields *fields, struct kx_similar_query *query)
{
	json_t *weights = kx_fields_take(fields, "weights");
	struct kx_fields item;

	if (weights == NULL || !kx_fields_enter(fields, "weights", SIZE_MAX, weights, &item))
		return;
	query->weight_visual = query->weight_audio = 0;
	kx_fields_real(&item, "visual", 0, 1e6, &query->weight_visual);
	kx_fields_real(&item, "audio", 0, 1e6, &query->weight_audio);
	kx_fields_leave(&item);
}

static void read_choices(struct kx_fields *fields, struct kx_similar_query *query)
{
	static const char *const groups[] = {"none", "source", "duplicates", NULL};
	static const char *const levels[] = {"videos", "moments", NULL};
	int group = (int)query->group, level = (int)query->level;

	kx_fields_choice(fields, "group", groups, &group);
	kx_fields_choice(fields, "level", levels, &level);
	query->group = (enum kx_query_group)group;
	query->level = (enum kx_query_level)level;
}

/* The options that all kinds of similarity queries share. */
static void read_options(struct kx_fields *fields, const struct kx_decode_limits *limits, struct kx_similar_query *query)
{
	kx_fields_u32(fields, "k", 1, limits->k_max, &query->k);
	kx_fields_bool(fields, "moments", &query->with_moments);
	read_weights(fields, query);
	kx_fields_copy(fields, "filter", 0, KX_QUERY_FILTER_BYTES_MAX, &query->filter);
	if (kx_fields_real(fields, "min_score", -1, 1, &query->min_score))
		query->has_min_score = true;
	kx_fields_copy(fields, "cursor", 0, KX_QUERY_CURSOR_MAX, &query->cursor);
	read_choices(fields, query);
	kx_fields_real(fields, "diversity", 0, 1, &query->diversity);
	kx_fields_texts(fields, "not_ids", KX_QUERY_NOT_IDS_MAX, KX_ID_MAX, &query->not_ids, &query->not_id_count);
	if (kx_fields_real(fields, "recall", 0, 1, &query->recall) && query->recall <= 0)
		kx_fields_fail(fields, "recall", KX_EINVAL, "must be over 0, to 1");
	kx_fields_bool(fields, "explain", &query->explain);
}

static void read_similar(struct kx_fields *fields, const struct kx_decode_limits *limits,
			 struct kx_query_request *request)
{
	request->kind = KX_QUERY_SIMILAR;
	start_query(&request->similar);
	kx_fields_copy(fields, "id", 1, KX_ID_MAX, &request->similar.video_id);
	read_options(fields, limits, &request->similar);
	if (request->similar.video_id == NULL)
		kx_fields_fail(fields, "id", KX_EINVAL, "is missing");
	finish_query(fields, &request->similar);
}

static void read_batch(struct kx_fields *fields, json_t *list, const struct kx_decode_limits *limits,
		       struct kx_query_request *request)
{
	size_t count = json_array_size(list);

	request->kind = KX_QUERY_SIMILAR_BATCH;
	request->batch = calloc(count, sizeof(*request->batch));
	if (request->batch == NULL) {
		kx_fields_fail(fields, NULL, KX_ENOMEM, "out of memory");
		return;
	}
	for (size_t i = 0; i < count && fields->status == KX_OK; i++) {
		struct kx_similar_query *query = &request->batch[i];
		struct kx_fields item;

		if (!kx_fields_enter(fields, "queries", i, json_array_get(list, i), &item))
			return;
		start_query(query);
		request->batch_count++;
		kx_fields_copy(&item, "id", 1, KX_ID_MAX, &query->video_id);
		if (query->video_id == NULL)
			read_vectors(&item, query);
		read_options(&item, limits, query);
		finish_query(&item, query);
		kx_fields_leave(&item);
	}
}

static void read_search(struct kx_fields *fields, const struct kx_decode_limits *limits, struct kx_query_request *request)
{
	json_t *queries = kx_fields_list(fields, "queries", 1, limits->batch_max);

	if (queries != NULL) {
		read_batch(fields, queries, limits, request);
		return;
	}
	request->kind = KX_QUERY_SIMILAR;
	start_query(&request->similar);
	read_vectors(fields, &request->similar);
	read_options(fields, limits, &request->similar);
	finish_query(fields, &request->similar);
}

static void read_videos(struct kx_fields *fields, const struct kx_decode_limits *limits, struct kx_query_request *request)
{
	request->kind = KX_QUERY_VIDEOS;
	kx_fields_texts(fields, "ids", limits->batch_max, KX_ID_MAX, &request->video_ids, &request->video_id_count);
	if (request->video_id_count == 0)
		kx_fields_fail(fields, "ids", KX_EINVAL, "is missing or empty");
}

kx_status kx_decode_body(enum kx_body body, const char *text, size_t len, const struct kx_decode_limits *limits,
			 struct kx_query_request **ret, struct kx_error *error)
{
	KX_CLEANUP(kx_query_request_cleanup) struct kx_query_request *request = NULL;
	json_t *root = NULL;
	struct kx_fields fields;
	kx_status status = parse(text, len, &root, error);

	if (status != KX_OK)
		return status;
	request = calloc(1, sizeof(*request));
	if (request == NULL) {
		json_decref(root);
		return kx_error_nomem(error);
	}
	kx_fields_begin(&fields, root, error);
	if (body == KX_BODY_SIMILAR)
		read_similar(&fields, limits, request);
	else if (body == KX_BODY_SEARCH)
		read_search(&fields, limits, request);
	else
		read_videos(&fields, limits, request);
	kx_fields_leave(&fields);
	json_decref(root);
	if (fields.status == KX_OK)
		*ret = KX_STEAL(request);
	return fields.status;
}
