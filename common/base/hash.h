/* SHA-256, for content, bundles and recipes (libcrypto, which uses the CPU's instructions). Layer: base. */
#ifndef KX_BASE_HASH_H
#define KX_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

#define KX_SHA256_LEN 32

struct kx_sha256;

kx_status kx_sha256_new(struct kx_sha256 **ret_hash) KX_MUST_CHECK;
void kx_sha256_free(struct kx_sha256 *hash); /* NULL is nothing */
void kx_sha256_cleanup(struct kx_sha256 **hash);
void kx_sha256_update(struct kx_sha256 *hash, const void *bytes, size_t len);
void kx_sha256_final(struct kx_sha256 *hash, uint8_t out[KX_SHA256_LEN]); /* after it, only free */

kx_status kx_sha256_bytes(const void *bytes, size_t len, uint8_t out[KX_SHA256_LEN]) KX_MUST_CHECK;

/* Hashes a file from its start through a descriptor (pread; the file offset is not moved). Blocks on disk. */
kx_status kx_sha256_fd(int fd, uint8_t out[KX_SHA256_LEN], struct kx_error *error) KX_MUST_CHECK;

#endif
