/* What is in a bucket: ListObjectsV2, page by page. */
#include <expat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/str.h"
#include "common/fetch/request.h"

#define PAGE_OBJECTS_MAX 1000u /* what a page has at most, says S3 */
#define PAGE_BYTES_MAX ((size_t)8 << 20)
#define TEXT_MAX ((size_t)64 << 10)
#define DEPTH_MAX 8

struct listed {
	char *key;
	char etag[KX_ETAG_MAX];
	char modified[64];
	uint64_t size;
};

struct kx_fetch_list {
	struct kx_fetch *fetch;
	char *url;
	char *bucket, *prefix;
	char *next_page;  /* NULL: the page at hand is the last */
	struct listed *page;
	size_t count, at;
	bool begun;

	/* While a page is read. */
	XML_Parser parser;
	unsigned depth;
	bool in_object, truncated, encoded;
	struct kx_buf text;
	char *token;
	kx_status status;
};

static void drop_page(struct kx_fetch_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->page[i].key);
	list->count = list->at = 0;
}

/* ---- reading XML ---- */

static void XMLCALL on_start(void *ctx, const XML_Char *name, const XML_Char **attributes)
{
	struct kx_fetch_list *list = ctx;
	(void)attributes;
	kx_buf_clear(&list->text);
	if (++list->depth > DEPTH_MAX)
		list->status = KX_ECORRUPT;
	if (list->status != KX_OK) /* what the object at hand owns must not be forgotten for a next one */
		return;
	if (list->depth != 2 || strcmp(name, "Contents") != 0)
		return;
	list->in_object = list->count < PAGE_OBJECTS_MAX;
	if (list->in_object)
		list->page[list->count] = (struct listed){0};
	else
		list->status = KX_ETOOBIG;
}

static void XMLCALL on_text(void *ctx, const XML_Char *text, int len)
{
	struct kx_fetch_list *list = ctx;
	if (list->status == KX_OK)
		list->status = kx_buf_append(&list->text, text, (size_t)len);
}

static void keep(char *out, size_t out_len, const char *text)
{
	if (strlen(text) < out_len)
		memcpy(out, text, strlen(text) + 1);
}

/* As it stands in the head of the object itself; some servers leave its quotes out in listings. */
static void keep_etag(struct listed *object, const char *text)
{
	bool bare = text[0] && text[0] != '"' && text[0] != 'W';
	if (bare && strlen(text) + 3 <= sizeof(object->etag))
		sprintf(object->etag, "\"%s\"", text);
	else if (!bare)
		keep(object->etag, sizeof(object->etag), text);
}

static kx_status end_of_field(struct kx_fetch_list *list, const char *name, const char *text)
{
	struct listed *object = &list->page[list->count];
	if (strcmp(name, "Key") == 0 && !object->key) {
		object->key = list->encoded ? kx_url_decode(text, true) : kx_strdup(text);
		return object->key ? KX_OK : KX_ENOMEM;
	}
	if (strcmp(name, "ETag") == 0)
		keep_etag(object, text);
	else if (strcmp(name, "LastModified") == 0)
		keep(object->modified, sizeof(object->modified), text);
	else if (strcmp(name, "Size") == 0)
		return kx_parse_u64(text, &object->size) == KX_OK ? KX_OK : KX_ECORRUPT;
	return KX_OK;
}

static kx_status end_of_list_field(struct kx_fetch_list *list, const char *name, const char *text)
{
	if (strcmp(name, "IsTruncated") == 0)
		list->truncated = strcmp(text, "true") == 0;
	else if (strcmp(name, "NextContinuationToken") == 0)
		return kx_str_set(&list->token, text);
	return KX_OK;
}

static void XMLCALL on_end(void *ctx, const XML_Char *name)
{
	struct kx_fetch_list *list = ctx;
	const char *text = list->text.data ? (const char *)list->text.data : "";
	unsigned depth = list->depth--;
	if (list->status != KX_OK)
		return;
	if (depth == 3 && list->in_object) {
		list->status = end_of_field(list, name, text);
	} else if (depth == 2 && list->in_object) {
		list->in_object = false;
		list->status = list->page[list->count].key ? KX_OK : KX_ECORRUPT;
		list->count++;
	} else if (depth == 2) {
		list->status = end_of_list_field(list, name, text);
	}
	kx_buf_clear(&list->text);
}

/* Entities can make a small document large; a listing has none of its own. */
static void XMLCALL on_entity(void *ctx, const XML_Char *name, int is_parameter, const XML_Char *value, int len,
			      const XML_Char *base, const XML_Char *system, const XML_Char *public,
			      const XML_Char *notation)
{
	struct kx_fetch_list *list = ctx;
	(void)name, (void)is_parameter, (void)value, (void)len, (void)base, (void)system, (void)public, (void)notation;
	list->status = KX_ECORRUPT;
	(void)XML_StopParser(list->parser, XML_FALSE);
}

static kx_status parse(struct kx_fetch_list *list, const struct kx_buf *page)
{
	list->parser = XML_ParserCreate(NULL);
	if (!list->parser)
		return KX_ENOMEM;
	list->depth = 0;
	list->in_object = list->truncated = false;
	list->status = KX_OK;
	XML_SetUserData(list->parser, list);
	XML_SetElementHandler(list->parser, on_start, on_end);
	XML_SetCharacterDataHandler(list->parser, on_text);
	XML_SetEntityDeclHandler(list->parser, on_entity);
	/* encoding-type=url was asked for; a server that does not know it says so by not repeating it. */
	list->encoded = page->len > 0 && strstr((const char *)page->data, "<EncodingType>url</EncodingType>");
	enum XML_Status parsed = XML_Parse(list->parser, page->len > 0 ? (const char *)page->data : "", (int)page->len, 1);
	XML_ParserFree(list->parser);
	list->parser = NULL;
	if (list->in_object) /* an object whose end did not come */
		list->count++;
	if (list->status != KX_OK)
		return list->status;
	return parsed == XML_STATUS_OK && (!list->truncated || list->token) ? KX_OK : KX_ECORRUPT;
}

/* ---- asking ---- */

struct asking {
	struct kx_buf *page;
};

static void forget(void *ctx, struct kx_request *request)
{
	struct asking *asking = ctx;
	(void)request;
	kx_buf_clear(asking->page);
}

static kx_status take(void *ctx, const char *bytes, size_t len)
{
	struct asking *asking = ctx;
	return kx_buf_append(asking->page, bytes, len);
}

/* Its names in order, as the signature wants them. */
static char *query_of(const struct kx_fetch_list *list)
{
	KX_CLEANUP(kx_cleanup_free) char *prefix = kx_url_encode(list->prefix, "");
	KX_CLEANUP(kx_cleanup_free) char *token = kx_url_encode(list->next_page ? list->next_page : "", "");
	if (!prefix || !token)
		return NULL;
	return kx_strf("%s%s%sencoding-type=url&list-type=2&prefix=%s", list->next_page ? "continuation-token=" : "",
		       token, list->next_page ? "&" : "", prefix);
}

static kx_status ask(struct kx_fetch_list *list, struct kx_buf *page, struct kx_error *error)
{
	struct kx_target target = {0};
	struct kx_request request = {0};
	struct kx_trouble trouble = {0};
	struct asking asking = {.page = page};
	const struct kx_exchange exchange = {.ctx = &asking, .prepare = forget, .take = take};
	KX_CLEANUP(kx_cleanup_free) char *query = query_of(list);
	if (!query)
		return kx_error_nomem(error);
	kx_status status = kx_target_of_bucket(list->url, query, &target, error);
	if (status)
		return status;
	kx_request_run(list->fetch, &request, &target, &exchange, &trouble);
	kx_request_done(&request);
	kx_target_done(&target);
	return trouble.status ? kx_trouble_pass(&trouble, NULL, error) : KX_OK;
}

static kx_status next_page(struct kx_fetch_list *list, struct kx_error *error)
{
	struct kx_buf page = {.max = PAGE_BYTES_MAX};
	drop_page(list);
	kx_status status = ask(list, &page, error);
	if (status == KX_OK) {
		status = parse(list, &page);
		if (status)
			kx_error_set(error, status, KX_ERROR_POISON, "%.300s: its listing can't be read (%s)", list->url,
				     kx_status_name(status));
	}
	kx_buf_done(&page);
	free(list->next_page);
	list->next_page = list->truncated ? KX_STEAL(list->token) : NULL;
	free(KX_STEAL(list->token));
	list->begun = true;
	return status;
}

kx_status kx_fetch_list_open(struct kx_fetch *fetch, const char *url, struct kx_fetch_list **ret,
			     struct kx_error *error)
{
	struct kx_fetch_list *list = calloc(1, sizeof(*list));
	if (!list)
		return kx_error_nomem(error);
	list->fetch = fetch;
	list->text.max = TEXT_MAX;
	list->url = kx_strdup(url);
	list->page = calloc(PAGE_OBJECTS_MAX, sizeof(*list->page));
	kx_status status = list->url && list->page ? kx_url_split_s3(url, &list->bucket, &list->prefix, error)
						   : kx_error_nomem(error);
	if (status == KX_OK)
		status = next_page(list, error);
	if (status == KX_OK)
		*ret = list;
	else
		kx_fetch_list_free(list);
	return status;
}

void kx_fetch_list_free(struct kx_fetch_list *list)
{
	if (!list)
		return;
	drop_page(list);
	kx_buf_done(&list->text);
	free(list->page);
	free(list->token);
	free(list->next_page);
	free(list->prefix);
	free(list->bucket);
	free(list->url);
	free(list);
}

void kx_fetch_object_done(struct kx_fetch_object *object)
{
	free(object->url);
	free(object->name);
	*object = (struct kx_fetch_object){0};
}

static kx_status describe(const struct kx_fetch_list *list, const struct listed *listed, struct kx_fetch_object *ret)
{
	struct kx_fetch_object object = {0};
	object.url = kx_strf("s3://%s/%s", list->bucket, listed->key);
	object.name = kx_strdup(listed->key + strlen(list->prefix));
	if (!object.url || !object.name ||
	    kx_fingerprint(object.url, listed->size, listed->etag, listed->modified, &object.info) != KX_OK) {
		kx_fetch_object_done(&object);
		return KX_ENOMEM;
	}
	*ret = object;
	return KX_OK;
}

kx_status kx_fetch_list_next(struct kx_fetch_list *list, struct kx_fetch_object *ret, struct kx_error *error)
{
	for (;;) {
		if (list->at < list->count) {
			const struct listed *listed = &list->page[list->at++];
			/* No object's key is empty; the address of such a one would be the bucket's. */
			if (!listed->key[0] || !kx_str_starts(listed->key, list->prefix) || kx_str_ends(listed->key, "/"))
				continue;
			return describe(list, listed, ret) == KX_OK ? KX_OK : kx_error_nomem(error);
		}
		if (!list->next_page)
			return KX_ENOTFOUND;
		kx_status status = next_page(list, error);
		if (status)
			return status;
	}
}
