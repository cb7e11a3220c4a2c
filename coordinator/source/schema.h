/* Types of a catalogue's attributes: declared in a file, or as a manifest's rows show them. Internal to
 * coordinator/source but for loading and freeing. */
#ifndef KX_COORDINATOR_SOURCE_SCHEMA_H
#define KX_COORDINATOR_SOURCE_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/record/attribute.h"

#define KX_SCHEMA_MAX 512u /* attributes */

struct kx_schema_entry {
	char *name;
	enum kx_attribute_type type; /* text, number or bool */
	uint64_t line;               /* where a row first showed it; 0: declared */
};

struct kx_schema {
	struct kx_schema_entry *entries;
	size_t count;
};

/* A JSON file of one object, name to "text" (or "string"), "number", "bool". KX_EINVAL names the file and what is wrong
 * in it. */
kx_status kx_schema_load(const char *path, struct kx_schema **ret, struct kx_error *error) KX_MUST_CHECK;
void kx_schema_free(struct kx_schema *schema); /* NULL is nothing */
void kx_schema_cleanup(struct kx_schema **schema);

/* from NULL: an empty one. KX_ENOMEM. */
kx_status kx_schema_copy(const struct kx_schema *from, struct kx_schema **ret) KX_MUST_CHECK;
struct kx_schema_entry *kx_schema_find(const struct kx_schema *schema, const char *name);
/* KX_EINVAL without a message when there are KX_SCHEMA_MAX. */
kx_status kx_schema_add(struct kx_schema *schema, const char *name, enum kx_attribute_type type, uint64_t line)
	KX_MUST_CHECK;

#endif
