/* One row of the option table: finding it, checking a value against it. Layer: config; private to this folder. */
#ifndef KX_CONFIG_OPTION_H
#define KX_CONFIG_OPTION_H

#include "common/config/config.h"

/* Which member counts is the option's type. */
struct kx_option_value {
	bool flag;
	int64_t integer;
	double real;
	char *text; /* owned */
};

/* The row with that key, rather the command's own than another's. NULL when there is none. */
const struct kx_option *kx_option_find(const struct kx_option *table, size_t table_len, unsigned command,
				       const char *key);

/* The key that somebody who wrote `key` most likely meant, among the rows of `commands`; NULL when none is near. */
const char *kx_option_nearest(const struct kx_option *table, size_t table_len, unsigned commands, const char *key);

/* Checks text and puts it into *value, whose old text is freed. The message begins with the value and leaves it to
 * the caller to put in front where it comes from. */
kx_status kx_option_set(const struct kx_option *option, const char *text, struct kx_option_value *value,
			struct kx_error *error) KX_MUST_CHECK;

/* "1 to 60 fps", "at least 1 bytes"; empty when any number will do. */
void kx_option_format_range(const struct kx_option *option, char *out, size_t out_len);

/* Calls for each word of "exact|keyframe": NULL to begin with, then what it returned; the word is *ret_len long. */
const char *kx_option_next_choice(const struct kx_option *option, const char *word, size_t *ret_len);

#endif
