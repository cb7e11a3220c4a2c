#include "shard/query/attributes.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/str.h"

#define MODALITIES 2

struct definition {
	const char *name;
	const char *alias; /* or NULL */
	enum kx_attribute_type type;
};

static const struct definition builtins[KX_BUILTIN_COUNT] = {
	[KX_BUILTIN_ID] = {"id", NULL, KX_ATTRIBUTE_TEXT},
	[KX_BUILTIN_TITLE] = {"title", NULL, KX_ATTRIBUTE_TEXT},
	[KX_BUILTIN_SOURCE] = {"source", NULL, KX_ATTRIBUTE_TEXT},
	[KX_BUILTIN_LANGUAGE] = {"language", "lang", KX_ATTRIBUTE_TEXT},
	[KX_BUILTIN_VISIBILITY] = {"visibility", NULL, KX_ATTRIBUTE_TEXT},
	[KX_BUILTIN_LABEL] = {"label", "labels", KX_ATTRIBUTE_TEXT},
	[KX_BUILTIN_CLASS] = {"class", NULL, KX_ATTRIBUTE_CLASS},
	[KX_BUILTIN_DURATION] = {"duration", NULL, KX_ATTRIBUTE_DURATION},
	[KX_BUILTIN_ADDED] = {"added", NULL, KX_ATTRIBUTE_DATE},
	[KX_BUILTIN_WIDTH] = {"width", NULL, KX_ATTRIBUTE_NUMBER},
	[KX_BUILTIN_HEIGHT] = {"height", NULL, KX_ATTRIBUTE_NUMBER},
	[KX_BUILTIN_VISUAL] = {"visual", NULL, KX_ATTRIBUTE_BOOL},
	[KX_BUILTIN_AUDIO] = {"audio", NULL, KX_ATTRIBUTE_BOOL},
	[KX_BUILTIN_DUPLICATE_OF] = {"duplicate_of", NULL, KX_ATTRIBUTE_TEXT},
};

struct user_attribute {
	char *name;
	enum kx_attribute_type type;
};

struct kx_attributes {
	struct user_attribute *users; /* [KX_ATTRIBUTES_SEEN_MAX] */
	uint32_t user_count;
	struct labels {
		uint32_t count;
		char **labels;
	} classes[MODALITIES];
};

kx_status kx_attributes_new(struct kx_attributes **ret)
{
	struct kx_attributes *attributes = calloc(1, sizeof(*attributes));

	if (!attributes)
		return KX_ENOMEM;
	attributes->users = calloc(KX_ATTRIBUTES_SEEN_MAX, sizeof(*attributes->users));
	if (!attributes->users) {
		free(attributes);
		return KX_ENOMEM;
	}
	*ret = attributes;
	return KX_OK;
}

static void labels_done(struct labels *labels)
{
	for (uint32_t i = 0; i < labels->count; i++)
		free(labels->labels[i]);
	free(labels->labels);
	*labels = (struct labels){0};
}

void kx_attributes_free(struct kx_attributes *attributes)
{
	if (!attributes)
		return;
	for (uint32_t i = 0; i < attributes->user_count; i++)
		free(attributes->users[i].name);
	free(attributes->users);
	for (int m = 0; m < MODALITIES; m++)
		labels_done(&attributes->classes[m]);
	free(attributes);
}

kx_status kx_attributes_set_classes(struct kx_attributes *attributes, const struct kx_class_names *names)
{
	struct labels *to = &attributes->classes[names->modality - KX_VISUAL], copy = {0};

	copy.labels = calloc(names->count + 1u, sizeof(char *));
	if (!copy.labels)
		return KX_ENOMEM;
	for (; copy.count < names->count; copy.count++) {
		copy.labels[copy.count] = kx_strdup(names->labels[copy.count]);
		if (!copy.labels[copy.count]) {
			labels_done(&copy);
			return KX_ENOMEM;
		}
	}
	labels_done(to);
	*to = copy;
	return KX_OK;
}

kx_status kx_attributes_copy_classes(const struct kx_attributes *from, struct kx_attributes *to)
{
	kx_status status = KX_OK;

	for (int m = 0; !status && m < MODALITIES; m++) {
		const struct kx_class_names names = {.modality = (enum kx_modality)(KX_VISUAL + m),
						     .count = from->classes[m].count,
						     .labels = (const char *const *)from->classes[m].labels};

		status = kx_attributes_set_classes(to, &names);
	}
	return status;
}

uint32_t kx_attributes_find(const struct kx_attributes *attributes, const char *name)
{
	for (uint32_t i = 0; i < KX_BUILTIN_COUNT; i++)
		if (strcmp(builtins[i].name, name) == 0 || kx_str_eq(builtins[i].alias, name))
			return i;
	for (uint32_t i = 0; i < attributes->user_count; i++)
		if (strcmp(attributes->users[i].name, name) == 0)
			return KX_BUILTIN_COUNT + i;
	return KX_ATTRIBUTE_NONE;
}

kx_status kx_attributes_declare(struct kx_attributes *attributes, const char *name, enum kx_attribute_type type,
				uint32_t *ret)
{
	uint32_t found = kx_attributes_find(attributes, name);
	char *copy;

	if (found != KX_ATTRIBUTE_NONE || attributes->user_count == KX_ATTRIBUTES_SEEN_MAX) {
		*ret = kx_attributes_is_user(found) ? found : KX_ATTRIBUTE_NONE;
		return KX_OK;
	}
	copy = kx_strdup(name);
	if (!copy)
		return KX_ENOMEM;
	attributes->users[attributes->user_count] = (struct user_attribute){copy, type};
	*ret = KX_BUILTIN_COUNT + attributes->user_count++;
	return KX_OK;
}

uint32_t kx_attributes_count(const struct kx_attributes *attributes)
{
	return KX_BUILTIN_COUNT + attributes->user_count;
}

bool kx_attributes_is_user(uint32_t number)
{
	return number >= KX_BUILTIN_COUNT && number != KX_ATTRIBUTE_NONE;
}

const char *kx_attributes_name(const struct kx_attributes *attributes, uint32_t number)
{
	return kx_attributes_is_user(number) ? attributes->users[number - KX_BUILTIN_COUNT].name : builtins[number].name;
}

enum kx_attribute_type kx_attributes_type(const struct kx_attributes *attributes, uint32_t number)
{
	return kx_attributes_is_user(number) ? attributes->users[number - KX_BUILTIN_COUNT].type : builtins[number].type;
}

/* How far a name is from what was typed; SIZE_MAX: not at all alike. */
static size_t distance(const char *typed, const char *name)
{
	size_t len = strlen(typed), far = kx_edit_distance(typed, name);

	return far <= 1 + len / 3 && far < len ? far : SIZE_MAX;
}

const char *kx_attributes_nearest(const struct kx_attributes *attributes, const char *name)
{
	const char *best = NULL;
	size_t least = SIZE_MAX;

	for (uint32_t i = 0; i < kx_attributes_count(attributes); i++) {
		const char *candidate = kx_attributes_name(attributes, i);
		size_t far = strcasecmp(candidate, name) == 0 ? 0 : distance(name, candidate);

		if (far < least) {
			least = far;
			best = candidate;
		}
	}
	return best;
}

static size_t by_number(const char *label, uint64_t *ret_keys, size_t max)
{
	const char *hash = strchr(label, '#');
	size_t count = 0;
	uint64_t id;

	if (!hash || kx_parse_u64(hash + 1, &id) || id > UINT32_MAX)
		return 0;
	for (uint64_t m = KX_VISUAL; m <= KX_AUDIO; m++) {
		const char *name = kx_modality_name((enum kx_modality)m);
		size_t len = (size_t)(hash - label);

		if (count < max && (!len || (strlen(name) == len && strncasecmp(name, label, len) == 0)))
			ret_keys[count++] = KX_CLASS_KEY(m, id);
	}
	return count;
}

size_t kx_attributes_classes(const struct kx_attributes *attributes, const char *label, uint64_t *ret_keys, size_t max)
{
	size_t count = 0;

	for (int m = 0; m < MODALITIES; m++) {
		const struct labels *names = &attributes->classes[m];

		for (uint32_t id = 0; id < names->count && count < max; id++)
			if (strcasecmp(names->labels[id], label) == 0)
				ret_keys[count++] = KX_CLASS_KEY(m + KX_VISUAL, id);
	}
	return count ? count : by_number(label, ret_keys, max);
}

bool kx_attributes_knows_classes(const struct kx_attributes *attributes)
{
	return attributes->classes[0].count || attributes->classes[1].count;
}

static bool has_word(const char *label, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = label; len && (at = strcasestr(at, word)) != NULL; at++)
		if ((at == label || !isalnum((unsigned char)at[-1])) && !isalnum((unsigned char)at[len]))
			return true;
	return false;
}

const char *kx_attributes_nearest_class(const struct kx_attributes *attributes, const char *label)
{
	const char *best = NULL;
	size_t least = SIZE_MAX;

	if (strlen(label) > KX_ATTRIBUTE_NAME_MAX) /* edit distance is quadratic */
		return NULL;
	for (int m = 0; m < MODALITIES; m++) {
		const struct labels *names = &attributes->classes[m];

		for (uint32_t id = 0; id < names->count; id++) {
			const char *candidate = names->labels[id];
			size_t far = has_word(candidate, label) ? 0 : distance(label, candidate);

			if (far < least) {
				least = far;
				best = candidate;
			}
		}
	}
	return best;
}

const char *kx_attributes_class_name(const struct kx_attributes *attributes, uint64_t key)
{
	uint64_t m = (key >> 32) - KX_VISUAL;
	uint32_t id = (uint32_t)key;

	return m < MODALITIES && id < attributes->classes[m].count ? attributes->classes[m].labels[id] : NULL;
}
