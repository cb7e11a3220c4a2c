/* Status codes and the error object that every layer passes up. Layer: base. */
#ifndef KX_BASE_ERROR_H
#define KX_BASE_ERROR_H

#include <stdarg.h>

#include "common/base/macros.h"

/* 0 or negative. Functions that can fail return one; outputs named ret_* are written only when it is KX_OK. */
typedef enum kx_status {
	KX_OK = 0,
	KX_ENOMEM = -1,       /* an allocation failed or a memory cap was met */
	KX_EINVAL = -2,       /* the caller's or the user's value is wrong */
	KX_EIO = -3,          /* a file, socket or library failed to read or write */
	KX_ENOTFOUND = -4,
	KX_EEXIST = -5,
	KX_EAGAIN = -6,       /* nothing now; come back */
	KX_ETIMEDOUT = -7,
	KX_ECANCELED = -8,    /* stopped on purpose, or fenced by a newer owner */
	KX_ECORRUPT = -9,     /* bytes that do not say what they should */
	KX_ETOOBIG = -10,     /* over a stated maximum */
	KX_EFULL = -11,       /* disk or queue full */
	KX_EVERSION = -12,    /* written by another version */
	KX_EBUSY = -13,       /* somebody else holds it */
	KX_EUNSUPPORTED = -14,
	KX_EPERM = -15,
} kx_status;

/* A short word for a status ("not found"). Never NULL. */
const char *kx_status_name(kx_status status);

/* What the caller should do, which is all that decides between trying again, dead-lettering and stopping. */
enum kx_error_class {
	KX_ERROR_RETRY,  /* may well work next time: a broker away, a child killed */
	KX_ERROR_POISON, /* this input will never work: a bad file, a bad record */
	KX_ERROR_FATAL,  /* this process can't go on: no disk, no bundle, wrong version */
};

/* Filled by the function that fails, prefixed by each layer above, logged once by whoever handles it. Zeroed
 * memory is a valid empty error. Every function that takes one accepts NULL. */
struct kx_error {
	kx_status status;
	enum kx_error_class class;
	char message[512];
};

/* Writes all three fields and returns status, so that `return kx_error_set(...)` reads well. */
kx_status kx_error_set(struct kx_error *error, kx_status status, enum kx_error_class class, const char *format, ...)
	KX_PRINTF(4, 5);

/* Puts text and ": " in front of the message (text that ends so already gets no second colon) and returns the status
 * already there: `fallback` if error is NULL or empty; an empty error takes it as its status. */
kx_status kx_error_prefix(struct kx_error *error, kx_status fallback, const char *format, ...) KX_PRINTF(3, 4);

/* From errno: picks the status and class that fit (ENOSPC -> KX_EFULL, fatal; in doubt KX_EIO, retry), message
 * "what: strerror". */
kx_status kx_error_from_errno(struct kx_error *error, int errno_value, const char *format, ...) KX_PRINTF(3, 4);

/* Out of memory, said the same way everywhere. */
kx_status kx_error_nomem(struct kx_error *error);

#endif
