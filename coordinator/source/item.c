#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/fault.h"
#include "common/base/hash.h"
#include "common/base/str.h"
#include "coordinator/source/internal.h"

#define DIGEST_CHARS (2 * KX_SHA256_LEN)

kx_status kx_source_item_new(const char *video_id, const char *path, struct kx_source_item **ret)
{
	struct kx_source_item *item KX_CLEANUP(kx_source_item_cleanup) = calloc(1, sizeof(*item));

	if (!item)
		return KX_ENOMEM;
	item->reason = KX_REASON_NONE;
	item->video_id = kx_strdup(video_id ? video_id : "");
	item->path = kx_strdup(path ? path : "");
	item->title = kx_strdup("");
	item->message = kx_strdup("");
	item->extras.language = kx_strdup("");
	item->extras.visibility = kx_strdup("");
	if (!item->video_id || !item->path || !item->title || !item->message || !item->extras.language ||
	    !item->extras.visibility)
		return KX_ENOMEM;
	*ret = KX_STEAL(item);
	return KX_OK;
}

kx_status kx_source_item_refuse(struct kx_source_item *item, enum kx_reason reason, const char *message)
{
	char *copy = kx_strdup(message);

	if (!copy)
		return KX_ENOMEM;
	free(item->message);
	item->message = copy;
	item->reason = reason;
	return KX_OK;
}

void kx_source_item_free(struct kx_source_item *item)
{
	if (!item)
		return;
	for (uint32_t i = 0; i < item->label_count; i++)
		free(item->labels[i]);
	free(item->labels);
	free(item->video_id);
	free(item->path);
	free(item->title);
	free(item->message);
	kx_extras_done(&item->extras);
	free(item);
}

void kx_source_item_cleanup(struct kx_source_item **item)
{
	kx_source_item_free(*item);
	*item = NULL;
}

/* Bytes at the start of text that may stand in an id as they are; 0 when the first must be escaped. C1 controls
 * (U+0080 to U+009F) drive terminals as the others do. */
static size_t plain_step(const char *text, size_t len)
{
	unsigned char first = (unsigned char)text[0];

	if (first < 0x20 || first == 0x7f || first == '%')
		return 0;
	if (first == 0xc2 && len > 1 && (unsigned char)text[1] < 0xa0)
		return 0;
	return kx_utf8_step(text, len);
}

/* Cuts at the last place up to `keep` that is neither inside a character nor inside an escape. */
static size_t cut_at(const char *id, size_t keep)
{
	size_t at = 0;

	for (;;) {
		size_t step = id[at] == '%' ? 3 : kx_utf8_step(id + at, keep + 4 - at);

		if (at + step > keep)
			return at;
		at += step;
	}
}

static char *shorten(const char *id)
{
	uint8_t digest[KX_SHA256_LEN];
	char hex[DIGEST_CHARS + 1];

	if (kx_sha256_bytes(id, strlen(id), digest))
		return NULL;
	kx_hex_encode(digest, sizeof(digest), hex);
	return kx_strf("%.*s~%s", (int)cut_at(id, KX_ID_MAX - DIGEST_CHARS - 1), id, hex);
}

char *kx_source_id_of_path(const char *relative)
{
	static const char digits[] = "0123456789ABCDEF";
	size_t len = strlen(relative);
	char *id KX_CLEANUP(kx_cleanup_free) = malloc(3 * len + 1);
	char *out = id;

	if (!id)
		return NULL;
	for (size_t at = 0; at < len;) {
		size_t step = plain_step(relative + at, len - at);

		if (step) {
			memcpy(out, relative + at, step);
			out += step;
			at += step;
			continue;
		}
		*out++ = '%';
		*out++ = digits[(unsigned char)relative[at] >> 4];
		*out++ = digits[(unsigned char)relative[at] & 15];
		at++;
	}
	*out = '\0';
	if (out - id <= KX_ID_MAX)
		return KX_STEAL(id);
	return shorten(id);
}

static void refuse(struct kx_source_look *look, enum kx_reason reason, const char *message)
{
	look->reason = reason;
	snprintf(look->message, sizeof(look->message), "%s", message);
}

void kx_source_look_failed(int errno_value, struct kx_source_look *ret)
{
	char buffer[128];
	const char *text = strerror_r(errno_value, buffer, sizeof(buffer));

	switch (errno_value) {
	case ENOENT:
	case ENOTDIR:
	case ELOOP:
		refuse(ret, KX_REASON_NOT_FOUND, text);
		return;
	case EACCES:
	case EPERM:
		refuse(ret, KX_REASON_NO_PERMISSION, text);
		return;
	case ENAMETOOLONG:
		refuse(ret, KX_REASON_UNSUPPORTED, "its path is too long to be opened; shorten its names");
		return;
	default:
		refuse(ret, KX_REASON_READ_FAILED, text);
	}
}

static const char *kind_of(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFIFO:
		return "a named pipe, not a file";
	case S_IFSOCK:
		return "a socket, not a file";
	default:
		return "a device, not a file";
	}
}

void kx_source_look(int folder_fd, const char *name, struct kx_source_look *ret)
{
	struct stat info;

	*ret = (struct kx_source_look){.reason = KX_REASON_NONE};
	if (kx_fault("source.stat") || fstatat(folder_fd, name, &info, 0)) {
		kx_source_look_failed(errno, ret);
		ret->is_unknown = ret->reason != KX_REASON_NOT_FOUND;
		if (ret->is_unknown)
			return;
		if (fstatat(folder_fd, name, &info, AT_SYMLINK_NOFOLLOW))
			ret->is_gone = true;
		else
			refuse(ret, KX_REASON_NOT_FOUND, "a link that leads nowhere");
		return;
	}
	ret->is_folder = S_ISDIR(info.st_mode);
	if (ret->is_folder)
		return;
	if (!S_ISREG(info.st_mode))
		refuse(ret, KX_REASON_UNSUPPORTED, kind_of(info.st_mode));
	else if (faccessat(folder_fd, name, R_OK, AT_EACCESS))
		kx_source_look_failed(errno, ret);
}
