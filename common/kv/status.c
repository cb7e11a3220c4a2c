#include <string.h>

#include "common/kv/internal.h"

struct meaning {
	const char *text; /* as RocksDB 7.8 writes it */
	kx_status status;
	const char *cure;
};

/* The first that fits counts: "Corruption: IO error: No such file" is damage. */
static const struct meaning meanings[] = {
	{"Corruption:", KX_ECORRUPT, "the stored data is damaged; restore it, or remove the folder and index again"},
	{"No space left on device", KX_EFULL, "the disk is full; make room and run again"},
	{"Disk quota exceeded", KX_EFULL, "the disk quota is used up; make room and run again"},
	{"lock hold by current process", KX_EBUSY, "this process has it open for writing already"},
	{"While lock file", KX_EBUSY, "another process has it open for writing; end that one first"},
	{"Permission denied", KX_EPERM, "no permission; run as the user who owns the folder"},
	{"Read-only file system", KX_EPERM, "the file system is mounted read-only"},
	{"Too many open files", KX_EIO, "too many open files; raise the limit (ulimit -n)"},
	{"strict ascending order", KX_EINVAL, "keys must rise"},
	{"create_if_missing is false", KX_ENOTFOUND, "there is no store"},
};

kx_status kx_kv_fail(const char *path, char *text, struct kx_error *error)
{
	kx_status status = KX_EIO;
	const char *cure = "reading or writing failed; look at the disk";

	for (size_t i = 0; i < KX_ARRAY_LEN(meanings); i++) {
		if (strstr(text, meanings[i].text)) {
			status = meanings[i].status;
			cure = meanings[i].cure;
			break;
		}
	}
	(void)kx_error_set(error, status, KX_ERROR_FATAL, "store %s: %s (%s)", path, cure, text);
	rocksdb_free(text);
	return status;
}
