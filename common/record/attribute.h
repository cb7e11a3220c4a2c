/* What a catalogue says of a video beyond what kinodex knows by itself: a name and a value. Layer: record. */
#ifndef KX_RECORD_ATTRIBUTE_H
#define KX_RECORD_ATTRIBUTE_H

#include "common/record/record.h"

#define KX_ATTRIBUTES_MAX 64u     /* of one video */
#define KX_ATTRIBUTE_NAME_MAX 64u /* bytes */
#define KX_WORD_MAX 64u           /* bytes of a language or a visibility */

/* Numbers travel: append only. */
enum kx_attribute_type {
	KX_ATTRIBUTE_TEXT = 1,
	KX_ATTRIBUTE_NUMBER,
	KX_ATTRIBUTE_BOOL,
	KX_ATTRIBUTE_DURATION, /* seconds; not of a catalogue's */
	KX_ATTRIBUTE_DATE,     /* seconds since 1970; not of a catalogue's */
	KX_ATTRIBUTE_CLASS,    /* a score for each class; not of a catalogue's */
};
/* "text", "number", "bool", ... Never NULL. */
const char *kx_attribute_type_name(enum kx_attribute_type type);

struct kx_attribute {
	char *name;
	enum kx_attribute_type type; /* text, number or bool */
	char *text;                  /* of the other types "" */
	double number;               /* finite */
	bool flag;
};

/* What stands beside a title. Lists of attributes are by strictly rising name. */
struct kx_extras {
	char *language;   /* "" where nothing was said */
	char *visibility;
	uint32_t attribute_count;
	struct kx_attribute *attributes;
};
/* A copy that owns all it points to. KX_ENOMEM; *ret is then empty. */
kx_status kx_extras_copy(const struct kx_extras *from, struct kx_extras *ret) KX_MUST_CHECK;
void kx_extras_done(struct kx_extras *extras);
/* Whether two say the same; NULL is as good as "". */
bool kx_extras_equal(const struct kx_extras *a, const struct kx_extras *b);

/* Begins with a letter or _, then letters, digits, _, - and dots: what a filter can say without quotes. */
bool kx_attribute_name_ok(const char *name);

#endif
