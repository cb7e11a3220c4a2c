/* JSON text straight into a buffer, without a tree. Layer: gateway/json. */
#ifndef KX_GATEWAY_JSON_WRITER_H
#define KX_GATEWAY_JSON_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"

/* The first failure (no memory, over the buffer's max) stays in status, and what follows does nothing. */
struct kx_json {
	struct kx_buf *out;
	bool comma;
	kx_status status;
};

/* key: NULL inside a list. Bytes that are no UTF-8 become U+FFFD. */
void kx_json_open(struct kx_json *json, const char *key, char bracket);
void kx_json_close(struct kx_json *json, char bracket);
void kx_json_text(struct kx_json *json, const char *key, const char *text); /* NULL: "" */
void kx_json_integer(struct kx_json *json, const char *key, uint64_t value);
void kx_json_bool(struct kx_json *json, const char *key, bool value);
/* As many digits as a float has; what is no number becomes null. */
void kx_json_real(struct kx_json *json, const char *key, double value);
/* Microseconds as seconds, exact. */
void kx_json_seconds(struct kx_json *json, const char *key, uint64_t us);

#endif
