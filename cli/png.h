/* PNG files of 8-bit RGB rows. Layer: cli. */
#ifndef KX_CLI_PNG_H
#define KX_CLI_PNG_H

#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/error.h"

/* Appends width x height pixels of three bytes as a PNG file to out. KX_ENOMEM, KX_ETOOBIG over out's maximum. */
kx_status kx_png_encode(const uint8_t *rgb, uint32_t width, uint32_t height, struct kx_buf *out,
			struct kx_error *error) KX_MUST_CHECK;

/* Writes width x height pixels of three bytes to path, which is replaced. KX_EIO and the like, naming the path. */
kx_status kx_png_write(const char *path, const uint8_t *rgb, uint32_t width, uint32_t height,
		       struct kx_error *error) KX_MUST_CHECK;

#endif
