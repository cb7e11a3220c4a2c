#include "cli/png.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* Pictures to look at are written once: little time matters more than a few per cent of size. */
#define LEVEL 3
#define FILTER_UP 2

static void put_u32(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 24);
	at[1] = (uint8_t)(value >> 16);
	at[2] = (uint8_t)(value >> 8);
	at[3] = (uint8_t)value;
}

/* Length, name, content, and a checksum of the last two. */
static kx_status put_chunk(struct kx_buf *out, const char *name, const uint8_t *bytes, uint32_t len)
{
	uint8_t head[8], tail[4];
	put_u32(head, len);
	memcpy(head + 4, name, 4);
	uLong sum = crc32(crc32(0, head + 4, 4), bytes, len);
	put_u32(tail, (uint32_t)sum);
	kx_status status = kx_buf_append(out, head, sizeof(head));
	if (status == KX_OK)
		status = kx_buf_append(out, bytes, len);
	return status == KX_OK ? kx_buf_append(out, tail, sizeof(tail)) : status;
}

static kx_status put_file(struct kx_buf *out, const uint8_t *packed, uint32_t len, uint32_t width, uint32_t height)
{
	uint8_t header[13] = {0};
	put_u32(header, width);
	put_u32(header + 4, height);
	header[8] = 8; /* bits */
	header[9] = 2; /* RGB */
	kx_status status = kx_buf_append(out, "\x89PNG\r\n\x1a\n", 8);
	if (status == KX_OK)
		status = put_chunk(out, "IHDR", header, sizeof(header));
	if (status == KX_OK)
		status = put_chunk(out, "IDAT", packed, len);
	return status == KX_OK ? put_chunk(out, "IEND", (const uint8_t *)"", 0) : status;
}

/* Each row as its difference to the one above, after a byte that says so. */
static void filter_rows(const uint8_t *rgb, size_t stride, uint32_t height, uint8_t *out)
{
	for (uint32_t y = 0; y < height; y++) {
		const uint8_t *row = rgb + y * stride;
		*out++ = FILTER_UP;
		for (size_t x = 0; x < stride; x++)
			*out++ = (uint8_t)(row[x] - (y > 0 ? row[x - stride] : 0));
	}
}

kx_status kx_png_encode(const uint8_t *rgb, uint32_t width, uint32_t height, struct kx_buf *out, struct kx_error *error)
{
	size_t stride = (size_t)width * 3;
	size_t bytes = (stride + 1) * height;
	uLongf packed_len = compressBound(bytes);
	KX_CLEANUP(kx_cleanup_free) uint8_t *rows = malloc(bytes);
	KX_CLEANUP(kx_cleanup_free) uint8_t *packed = malloc(packed_len);
	if (rows == NULL || packed == NULL)
		return kx_error_nomem(error);
	filter_rows(rgb, stride, height, rows);
	/* With room for the worst case it can only fail for memory. */
	if (compress2(packed, &packed_len, rows, bytes, LEVEL) != Z_OK)
		return kx_error_nomem(error);
	kx_status status = put_file(out, packed, (uint32_t)packed_len, width, height);
	return status == KX_OK ? KX_OK : kx_error_set(error, status, KX_ERROR_POISON, "a picture of %ux%u: %s", width, height,
						      kx_status_name(status));
}

kx_status kx_png_write(const char *path, const uint8_t *rgb, uint32_t width, uint32_t height, struct kx_error *error)
{
	struct kx_buf png = {.max = SIZE_MAX};
	kx_status status = kx_png_encode(rgb, width, height, &png, error);
	FILE *file = status == KX_OK ? fopen(path, "wbe") : NULL;
	if (status == KX_OK && file == NULL)
		status = kx_error_from_errno(error, errno, "making %s", path);
	if (file != NULL) {
		int failed = fwrite(png.data, png.len, 1, file) != 1;
		failed |= fclose(file);
		if (failed)
			status = kx_error_from_errno(error, errno, "writing %s", path);
	}
	kx_buf_done(&png);
	return status;
}
