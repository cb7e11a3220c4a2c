/* Base64 (RFC 4648, 4), for vectors. Pure. Layer: gateway/json. */
#ifndef KX_GATEWAY_JSON_BASE64_H
#define KX_GATEWAY_JSON_BASE64_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

/* Padded, without blanks. KX_EINVAL for other text, KX_ETOOBIG over max bytes. The caller frees *ret; NULL for none. */
kx_status kx_base64_decode(const char *text, size_t max, uint8_t **ret, size_t *ret_len) KX_MUST_CHECK;

#endif
