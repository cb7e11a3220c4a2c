/* A small cache of bytes by key that drops what was not used for longest. Thread-safe. Layer: gateway/run. */
#ifndef KX_GATEWAY_RUN_CACHE_H
#define KX_GATEWAY_RUN_CACHE_H

#include "common/base/buf.h"

struct kx_cache_lru;

kx_status kx_cache_lru_new(size_t bytes_max, struct kx_cache_lru **ret, struct kx_error *error) KX_MUST_CHECK;
void kx_cache_lru_free(struct kx_cache_lru *cache); /* NULL is nothing */
/* Appends a copy to out. KX_ENOTFOUND. */
kx_status kx_cache_lru_get(struct kx_cache_lru *cache, const char *key, struct kx_buf *out) KX_MUST_CHECK;
/* Keeps a copy, as far as there is memory and room: a cache that can't keep something has still not failed. */
void kx_cache_lru_put(struct kx_cache_lru *cache, const char *key, const void *bytes, size_t len);

#endif
