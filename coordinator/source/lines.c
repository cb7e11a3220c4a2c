#include "coordinator/source/lines.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "common/base/fault.h"
#include "common/base/str.h"

#define BOM "\xef\xbb\xbf"

static kx_status refill(struct kx_lines *lines, struct kx_error *error)
{
	ssize_t got;

	do {
		got = kx_fault("source.read") ? -1 :
			pread(lines->fd, lines->chunk, sizeof(lines->chunk), lines->offset);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		return kx_error_from_errno(error, errno, "reading");
	lines->at = 0;
	lines->len = (size_t)got;
	lines->offset += got;
	return KX_OK;
}

static kx_status append(struct kx_buf *out, const char *bytes, size_t len, struct kx_error *error)
{
	kx_status status = kx_buf_append(out, bytes, len);

	if (status == KX_ENOMEM)
		return kx_error_nomem(error);
	if (status)
		return kx_error_set(error, status, KX_ERROR_POISON, "longer than the %zu bytes that a line may have",
				    out->max);
	return KX_OK;
}

static kx_status read_line(struct kx_lines *lines, struct kx_buf *out, struct kx_error *error)
{
	bool ended = false;

	while (!ended) {
		kx_status status = lines->at == lines->len ? refill(lines, error) : KX_OK;

		if (status)
			return status;
		if (!lines->len)
			return KX_OK;
		const char *from = lines->chunk + lines->at;
		const char *newline = memchr(from, '\n', lines->len - lines->at);
		size_t len = newline ? (size_t)(newline - from) + 1 : lines->len - lines->at;

		status = append(out, from, len, error);
		if (status)
			return status;
		lines->at += len;
		ended = newline;
	}
	return KX_OK;
}

kx_status kx_lines_next(struct kx_lines *lines, struct kx_buf *out, struct kx_error *error)
{
	size_t before = out->len;
	kx_status status;

	lines->number++;
	status = read_line(lines, out, error);
	if (status)
		return status;
	if (out->len == before)
		return KX_ENOTFOUND;
	char *line = (char *)out->data + before;
	size_t len = out->len - before;
	if (memchr(line, '\0', len))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
				    "it has zero bytes; save the file as UTF-8 text");
	if (!kx_utf8_valid(line, len))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_POISON,
				    "it is not UTF-8; save the file as UTF-8 (other bytes of a path can be given by a "
				    "file: URL)");
	if (lines->number == 1 && kx_str_starts(line, BOM)) {
		out->len -= strlen(BOM);
		memmove(line, line + strlen(BOM), len - strlen(BOM) + 1);
	}
	return KX_OK;
}

void kx_lines_rewind(struct kx_lines *lines)
{
	lines->number = 0;
	lines->offset = 0;
	lines->at = 0;
	lines->len = 0;
}
