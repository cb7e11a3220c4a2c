#include "common/base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base/str.h"

static const char *const STATUS_NAMES[] = {
	[-KX_OK] = "ok",
	[-KX_ENOMEM] = "out of memory",
	[-KX_EINVAL] = "invalid value",
	[-KX_EIO] = "input/output error",
	[-KX_ENOTFOUND] = "not found",
	[-KX_EEXIST] = "exists already",
	[-KX_EAGAIN] = "nothing now",
	[-KX_ETIMEDOUT] = "timed out",
	[-KX_ECANCELED] = "canceled",
	[-KX_ECORRUPT] = "corrupt",
	[-KX_ETOOBIG] = "too big",
	[-KX_EFULL] = "full",
	[-KX_EVERSION] = "wrong version",
	[-KX_EBUSY] = "busy",
	[-KX_EUNSUPPORTED] = "unsupported",
	[-KX_EPERM] = "not permitted",
};

const char *kx_status_name(kx_status status)
{
	if (status > 0 || status <= -(int)KX_ARRAY_LEN(STATUS_NAMES))
		return "unknown status";
	return STATUS_NAMES[-status];
}

/* A message that was cut must not end in half a character: it may become JSON. */
static void trim_half_character(char *text)
{
	size_t len = strlen(text);
	size_t start = len;

	while (start > 0 && len - start < 4) {
		start--;
		if (((unsigned char)text[start] & 0xc0) != 0x80)
			break;
	}
	if (len > 0 && ((unsigned char)text[start] & 0x80) && kx_utf8_step(text + start, len - start) == 0)
		text[start] = '\0';
}

/* Writes "head[: tail]", with one colon also when head brings its own. The texts may be, or be made of, the error's
 * own message, hence the copy. */
static void write_message(struct kx_error *error, const char *tail, const char *format, va_list args)
{
	char text[sizeof(error->message)] = "";
	size_t max = sizeof(text);
	int head = vsnprintf(text, max, format, args);
	size_t len = head < 0 ? 0 : (size_t)head;

	if (len < max && tail) {
		const char *colon = kx_str_ends(text, ": ") ? "" : ": ";
		int more = snprintf(text + len, max - len, "%s%s", colon, tail);
		len += more < 0 ? 0 : (size_t)more;
	}
	if (len >= max)
		trim_half_character(text);
	memcpy(error->message, text, strlen(text) + 1);
}

kx_status kx_error_set(struct kx_error *error, kx_status status, enum kx_error_class class, const char *format, ...)
{
	va_list args;

	if (!error)
		return status;
	va_start(args, format);
	write_message(error, NULL, format, args);
	va_end(args);
	error->status = status;
	error->class = class;
	return status;
}

kx_status kx_error_prefix(struct kx_error *error, kx_status fallback, const char *format, ...)
{
	char old[sizeof(error->message)];
	va_list args;

	if (!error)
		return fallback;
	memcpy(old, error->message, sizeof(old));
	va_start(args, format);
	write_message(error, old[0] ? old : NULL, format, args);
	va_end(args);
	if (error->status == KX_OK)
		error->status = fallback;
	return error->status;
}

static kx_status status_from_errno(int errno_value, enum kx_error_class *ret_class)
{
	switch (errno_value) {
	case ENOSPC:
	case EDQUOT:
		*ret_class = KX_ERROR_FATAL;
		return KX_EFULL;
	case ENOENT:
		*ret_class = KX_ERROR_POISON;
		return KX_ENOTFOUND;
	case EACCES:
	case EPERM:
		*ret_class = KX_ERROR_POISON;
		return KX_EPERM;
	case ENOMEM:
		*ret_class = KX_ERROR_RETRY;
		return KX_ENOMEM;
	default:
		*ret_class = KX_ERROR_RETRY;
		return KX_EIO;
	}
}

kx_status kx_error_from_errno(struct kx_error *error, int errno_value, const char *format, ...)
{
	enum kx_error_class class;
	kx_status status = status_from_errno(errno_value, &class);
	char buffer[128];
	va_list args;

	if (!error)
		return status;
	va_start(args, format);
	write_message(error, strerror_r(errno_value, buffer, sizeof(buffer)), format, args);
	va_end(args);
	error->status = status;
	error->class = class;
	return status;
}

kx_status kx_error_nomem(struct kx_error *error)
{
	return kx_error_set(error, KX_ENOMEM, KX_ERROR_RETRY, "out of memory");
}
