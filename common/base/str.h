/* Strings that are allocated and checked. Layer: base. */
#ifndef KX_BASE_STR_H
#define KX_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

/* Like asprintf; NULL when out of memory. The caller frees. */
char *kx_strf(const char *format, ...) KX_PRINTF(1, 2);
char *kx_strdup(const char *text);                    /* NULL in, NULL out */
char *kx_strndup(const char *text, size_t len);
/* Puts a copy of text (NULL: "") in *at and frees what was there. KX_ENOMEM leaves *at as it was. */
kx_status kx_str_set(char **at, const char *text) KX_MUST_CHECK;
bool kx_str_eq(const char *a, const char *b);         /* two NULLs are equal */
bool kx_str_starts(const char *text, const char *prefix);
bool kx_str_ends(const char *text, const char *suffix);
/* Bytes of the valid UTF-8 sequence (no overlong forms, no surrogates) at the start of text; 0 when there is none. */
size_t kx_utf8_step(const char *text, size_t len);
bool kx_utf8_valid(const char *text, size_t len);

/* Whole-string parsers of decimal numbers: blanks, trailing characters, overflow or an empty string are KX_EINVAL. */
kx_status kx_parse_u64(const char *text, uint64_t *ret_value) KX_MUST_CHECK;
kx_status kx_parse_double(const char *text, double *ret_value) KX_MUST_CHECK; /* finite only */

/* Lower-case hex of len bytes; out holds 2*len+1. And back: out_len must be strlen/2 (KX_EINVAL). */
void kx_hex_encode(const void *bytes, size_t len, char *out);
kx_status kx_hex_decode(const char *hex, void *out, size_t out_len) KX_MUST_CHECK;

/* "1.4 GiB" and "2 h 04 min" for people. Written into out, always terminated. */
void kx_format_bytes(uint64_t bytes, char *out, size_t out_len);
void kx_format_duration(uint64_t milliseconds, char *out, size_t out_len);

/* Edit distance (Levenshtein), to name the nearest key of a misspelt one. */
size_t kx_edit_distance(const char *a, const char *b);

#endif
