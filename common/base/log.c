#include "common/base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/str.h"

/* The longest escape is \x1b: four bytes for one. */
#define LINE_MAX_BYTES (KX_LOG_MESSAGE_MAX * 4 + 128)

static const char *const LEVEL_NAMES[] = {
	[KX_LOG_ERROR] = "error",
	[KX_LOG_WARN] = "warning",
	[KX_LOG_INFO] = "info",
	[KX_LOG_DEBUG] = "debug",
};

static atomic_int max_level = KX_LOG_WARN;

/* Guards all below. The buffers are static so that running out of memory can still be logged. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void (*hook_before)(void *ctx);
static void (*hook_after)(void *ctx);
static void *hook_ctx;
static char message[KX_LOG_MESSAGE_MAX + 1];
static char line[LINE_MAX_BYTES];

void kx_log_set_level(enum kx_log_level level)
{
	atomic_store(&max_level, (int)level);
}

void kx_log_set_hooks(void (*before)(void *ctx), void (*after)(void *ctx), void *ctx)
{
	pthread_mutex_lock(&lock);
	hook_before = before;
	hook_after = after;
	hook_ctx = ctx;
	pthread_mutex_unlock(&lock);
}

/* A file's name may hold an escape sequence or a newline; neither may reach the terminal. */
static size_t escape(char *out, unsigned char c)
{
	if (c == '\n') {
		memcpy(out, "\\n", 2);
		return 2;
	}
	return (size_t)snprintf(out, 5, "\\x%02x", (unsigned)c);
}

static bool is_plain(const char *at, size_t step)
{
	unsigned char c = (unsigned char)*at;

	if (step == 0 || c < 0x20 || c == 0x7f)
		return false;
	/* U+0080 to U+009F: terminals may take them for control characters. */
	return !(step == 2 && c == 0xc2 && (unsigned char)at[1] < 0xa0);
}

/* Appends text to the line. The line has room for the longest message fully escaped. */
static size_t put_escaped(size_t at, const char *text)
{
	size_t left = strlen(text);

	while (left) {
		size_t step = kx_utf8_step(text, left);
		if (is_plain(text, step)) {
			memcpy(line + at, text, step);
			at += step;
		} else {
			step = 1;
			at += escape(line + at, (unsigned char)*text);
		}
		text += step;
		left -= step;
	}
	return at;
}

static size_t format_line(enum kx_log_level level)
{
	size_t at = (size_t)snprintf(line, sizeof(line), "%s: ", LEVEL_NAMES[level]);

	at = put_escaped(at, message);
	line[at] = '\n';
	return at + 1;
}

/* When stderr can't be written there is nobody left to tell. */
static void write_line(size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t wrote = write(STDERR_FILENO, line + done, len - done);
		if (wrote < 0 && errno == EINTR)
			continue;
		if (wrote <= 0)
			return;
		done += (size_t)wrote;
	}
}

void kx_log(enum kx_log_level level, const char *format, ...)
{
	int saved = errno;
	va_list args;

	if ((int)level > atomic_load_explicit(&max_level, memory_order_relaxed))
		return;
	pthread_mutex_lock(&lock);
	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	if (hook_before)
		hook_before(hook_ctx);
	write_line(format_line(level));
	if (hook_after)
		hook_after(hook_ctx);
	pthread_mutex_unlock(&lock);
	errno = saved;
}

void kx_log_failure(const struct kx_error *error)
{
	enum kx_log_level level = error->class == KX_ERROR_RETRY ? KX_LOG_WARN : KX_LOG_ERROR;

	kx_log(level, "%s", error->message[0] ? error->message : kx_status_name(error->status));
}
