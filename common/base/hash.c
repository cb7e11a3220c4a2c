#include "common/base/hash.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/fault.h"

#define FILE_CHUNK_BYTES (256 * 1024)

struct kx_sha256 {
	EVP_MD_CTX *context;
};

void kx_sha256_free(struct kx_sha256 *hash)
{
	if (!hash)
		return;
	EVP_MD_CTX_free(hash->context);
	free(hash);
}

void kx_sha256_cleanup(struct kx_sha256 **hash)
{
	kx_sha256_free(*hash);
}

kx_status kx_sha256_new(struct kx_sha256 **ret_hash)
{
	struct kx_sha256 *hash KX_CLEANUP(kx_sha256_cleanup) = calloc(1, sizeof(*hash));

	if (!hash)
		return KX_ENOMEM;
	hash->context = EVP_MD_CTX_new();
	if (!hash->context || EVP_DigestInit_ex(hash->context, EVP_sha256(), NULL) != 1)
		return KX_ENOMEM;
	*ret_hash = KX_STEAL(hash);
	return KX_OK;
}

/* A context that was set up refuses bytes only when it is misused (an update after the final). Going on with a
 * wrong hash would be worse than ending, so this holds in release builds too. */
static void must(int openssl_result)
{
	if (openssl_result != 1)
		abort();
}

void kx_sha256_update(struct kx_sha256 *hash, const void *bytes, size_t len)
{
	must(EVP_DigestUpdate(hash->context, bytes, len));
}

void kx_sha256_final(struct kx_sha256 *hash, uint8_t out[KX_SHA256_LEN])
{
	must(EVP_DigestFinal_ex(hash->context, out, NULL));
}

kx_status kx_sha256_bytes(const void *bytes, size_t len, uint8_t out[KX_SHA256_LEN])
{
	return EVP_Digest(bytes, len, out, NULL, EVP_sha256(), NULL) == 1 ? KX_OK : KX_ENOMEM;
}

static kx_status hash_from_fd(struct kx_sha256 *hash, int fd, uint8_t *chunk, struct kx_error *error)
{
	off_t at = 0;

	for (;;) {
		ssize_t got = kx_fault("fs.read") ? -1 : pread(fd, chunk, FILE_CHUNK_BYTES, at);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return kx_error_from_errno(error, errno, "reading for the hash");
		if (got == 0)
			return KX_OK;
		kx_sha256_update(hash, chunk, (size_t)got);
		at += got;
	}
}

kx_status kx_sha256_fd(int fd, uint8_t out[KX_SHA256_LEN], struct kx_error *error)
{
	struct kx_sha256 *hash KX_CLEANUP(kx_sha256_cleanup) = NULL;
	uint8_t *chunk KX_CLEANUP(kx_cleanup_free) = malloc(FILE_CHUNK_BYTES);

	if (!chunk || kx_sha256_new(&hash))
		return kx_error_nomem(error);
	kx_status status = hash_from_fd(hash, fd, chunk, error);
	if (status)
		return status;
	kx_sha256_final(hash, out);
	return KX_OK;
}
