/* What a filter may ask about: names, types, and which classes there are. Layer: shard/query.
 *
 * The built-in attributes come first and have fixed numbers; those of catalogues are added as they are seen or declared,
 * and keep number and type as long as the registry lives. Not thread-safe: whoever owns it locks. */
#ifndef KX_SHARD_QUERY_ATTRIBUTES_H
#define KX_SHARD_QUERY_ATTRIBUTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/record/query.h"

enum kx_builtin {
	KX_BUILTIN_ID,
	KX_BUILTIN_TITLE,
	KX_BUILTIN_SOURCE,
	KX_BUILTIN_LANGUAGE,
	KX_BUILTIN_VISIBILITY,
	KX_BUILTIN_LABEL,
	KX_BUILTIN_CLASS,
	KX_BUILTIN_DURATION,
	KX_BUILTIN_ADDED,
	KX_BUILTIN_WIDTH,
	KX_BUILTIN_HEIGHT,
	KX_BUILTIN_VISUAL,       /* for has:visual */
	KX_BUILTIN_AUDIO,
	KX_BUILTIN_DUPLICATE_OF, /* id of the video that it nearly is; see duplicates.h */
	KX_BUILTIN_COUNT,
};

#define KX_ATTRIBUTES_SEEN_MAX 512u /* names of catalogues in one shard; more are not kept, and that is logged */
#define KX_ATTRIBUTE_NONE UINT32_MAX

struct kx_attributes;

/* The labels of the classes that one network tells apart: [count]; borrowed for the call. */
struct kx_class_names {
	enum kx_modality modality;
	uint32_t count;
	const char *const *labels;
};

kx_status kx_attributes_new(struct kx_attributes **ret) KX_MUST_CHECK;
void kx_attributes_free(struct kx_attributes *attributes); /* NULL is nothing */
/* Copies the names in the place of those that the modality had. KX_ENOMEM. */
kx_status kx_attributes_set_classes(struct kx_attributes *attributes, const struct kx_class_names *names) KX_MUST_CHECK;

kx_status kx_attributes_copy_classes(const struct kx_attributes *from, struct kx_attributes *to) KX_MUST_CHECK; /* likewise */

/* Finds or adds one of a catalogue's; the type counts for a new one. KX_ATTRIBUTE_NONE: no room, or a name that a
 * built-in has. KX_ENOMEM. */
kx_status kx_attributes_declare(struct kx_attributes *attributes, const char *name, enum kx_attribute_type type,
				uint32_t *ret) KX_MUST_CHECK;

uint32_t kx_attributes_count(const struct kx_attributes *attributes); /* built-in ones too */
const char *kx_attributes_name(const struct kx_attributes *attributes, uint32_t number);
enum kx_attribute_type kx_attributes_type(const struct kx_attributes *attributes, uint32_t number);
bool kx_attributes_is_user(uint32_t number);
/* By name or alias, as it is written; KX_ATTRIBUTE_NONE. */
uint32_t kx_attributes_find(const struct kx_attributes *attributes, const char *name);
/* The name most like it, or NULL when none is at all. */
const char *kx_attributes_nearest(const struct kx_attributes *attributes, const char *name);

/* A class of one modality: modality in the upper half, its number below. */
#define KX_CLASS_KEY(modality, id) ((uint64_t)(modality) << 32 | (id))
/* All classes that are meant by a label (whatever the case of its letters), "#712", "visual#712" or "audio#712"; at most
 * max. 0: none. */
size_t kx_attributes_classes(const struct kx_attributes *attributes, const char *label, uint64_t *ret_keys, size_t max);
bool kx_attributes_knows_classes(const struct kx_attributes *attributes);
/* The label most like it: one that contains it as a word before any misspelling. NULL when none is. */
const char *kx_attributes_nearest_class(const struct kx_attributes *attributes, const char *label);
/* NULL when it has no name here. */
const char *kx_attributes_class_name(const struct kx_attributes *attributes, uint64_t key);

#endif
