/* An address: one object, or all under an s3 prefix. */
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "coordinator/source/internal.h"

struct address {
	struct kx_source source; /* its root is without user and signature, which may be others each time */
	char *url;               /* as it was given */
	struct kx_fetch_list *list; /* NULL: a single object */
	bool given;
};

static kx_status single_next(struct address *address, struct kx_source_item **ret, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *name = kx_fetch_file_name(address->url);
	KX_CLEANUP(kx_cleanup_free) char *id = name ? kx_source_id_of_path(name) : NULL;
	if (address->given)
		return KX_ENOTFOUND;
	if (!id || kx_source_item_new(id, address->url, ret))
		return kx_error_nomem(error);
	address->given = true;
	return KX_OK;
}

/* As in a folder: what begins with a dot is somebody's own business. */
static bool is_hidden(const char *name)
{
	return name[0] == '.' || strstr(name, "/.");
}

static kx_status describe(const struct kx_fetch_object *object, struct kx_source_item **ret)
{
	KX_CLEANUP(kx_cleanup_free) char *id = kx_source_id_of_path(object->name);
	if (!id || kx_source_item_new(id, object->url, ret))
		return KX_ENOMEM;
	(*ret)->is_described = true;
	(*ret)->remote = object->info;
	return KX_OK;
}

static kx_status listed_next(struct address *address, struct kx_source_item **ret, struct kx_error *error)
{
	for (;;) {
		struct kx_fetch_object object = {0};
		kx_status status = kx_fetch_list_next(address->list, &object, error);
		if (status == KX_OK && is_hidden(object.name)) {
			kx_fetch_object_done(&object);
			continue;
		}
		if (status == KX_OK && describe(&object, ret) != KX_OK)
			status = kx_error_nomem(error);
		kx_fetch_object_done(&object);
		return status;
	}
}

static kx_status address_next(struct kx_source *source, struct kx_source_item **ret, struct kx_error *error)
{
	struct address *address = (struct address *)source;
	return address->list ? listed_next(address, ret, error) : single_next(address, ret, error);
}

static void address_done(struct kx_source *source)
{
	struct address *address = (struct address *)source;
	kx_fetch_list_free(address->list);
	free(address->url);
}

static const struct kx_source_kind address_kind = {.next = address_next, .done = address_done};

kx_status kx_source_open_address(struct kx_fetch *fetch, const char *url, struct kx_source **ret, struct kx_error *error)
{
	KX_CLEANUP(kx_source_cleanup) struct kx_source *source = NULL;
	struct address *address = calloc(1, sizeof(*address));
	if (!address)
		return kx_error_nomem(error);
	source = &address->source;
	*source = (struct kx_source){.kind = &address_kind, .root = kx_fetch_name(url)};
	address->url = kx_strdup(url);
	if (!source->root || !address->url)
		return kx_error_nomem(error);
	if (strlen(url) > KX_PATH_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON, "an address of %zu bytes, and at most %u are read",
				    strlen(url), KX_PATH_MAX);
	if (kx_fetch_is_prefix(url)) {
		kx_status status = kx_fetch_list_open(fetch, url, &address->list, error);
		if (status)
			return status;
		source->is_complete = true;
	}
	*ret = KX_STEAL(source);
	return KX_OK;
}
