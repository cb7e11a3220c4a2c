/* One log to stderr: a line a message, level first. Thread-safe. Layer: base. */
#ifndef KX_BASE_LOG_H
#define KX_BASE_LOG_H

#include "common/base/error.h"

enum kx_log_level { KX_LOG_ERROR, KX_LOG_WARN, KX_LOG_INFO, KX_LOG_DEBUG };

void kx_log_set_level(enum kx_log_level level); /* default: KX_LOG_WARN */

/* "warning: message", control characters and bytes that are no UTF-8 escaped. Messages are cut at KX_LOG_MESSAGE_MAX
 * bytes. errno is left alone. */
#define KX_LOG_MESSAGE_MAX 4095

/* Called before and after each line is written, under the log's lock, so that a progress bar can make room. They
 * must not log. */
void kx_log_set_hooks(void (*before)(void *ctx), void (*after)(void *ctx), void *ctx);

void kx_log(enum kx_log_level level, const char *format, ...) KX_PRINTF(2, 3);

/* Logs an error object once: as a warning when it will be tried again (KX_ERROR_RETRY), else as an error. */
void kx_log_failure(const struct kx_error *error);

#endif
