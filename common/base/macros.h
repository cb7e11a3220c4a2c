/* Language helpers used everywhere. Layer: base. */
#ifndef KX_BASE_MACROS_H
#define KX_BASE_MACROS_H

#include <stddef.h>

#define KX_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define KX_MUST_CHECK __attribute__((warn_unused_result))
#define KX_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* Runs fn(&variable) when the variable leaves its scope. Declare it set to NULL (or another value that fn takes
 * for "nothing"), and hand the value over with KX_STEAL. */
#define KX_CLEANUP(fn) __attribute__((cleanup(fn)))

/* Takes a pointer out of a variable and leaves NULL behind, so that a KX_CLEANUP on it does nothing. */
#define KX_STEAL(pointer)                    \
	__extension__({                      \
		__typeof__(pointer) *kx_at = &(pointer); \
		__typeof__(pointer) kx_taken = *kx_at;   \
		*kx_at = NULL;               \
		kx_taken;                    \
	})

/* Cleanup functions for what the C library hands out. */
void kx_cleanup_free(void *pointer_to_pointer);
void kx_cleanup_close(int *fd);            /* leaves errno alone; -1 is nothing */
void kx_cleanup_fclose(void *pointer_to_file);
void kx_cleanup_closedir(void *pointer_to_dir);

int kx_steal_fd(int *fd); /* what KX_STEAL is to a pointer; leaves -1 behind */

#endif
