/* The data directory: its format, its lock, and where its sockets are. Layer: cli. */
#ifndef KX_CLI_DATA_H
#define KX_CLI_DATA_H

#include <stdbool.h>

#include "common/base/error.h"

struct kx_data {
	char *dir;        /* absolute */
	char *socket_dir; /* dir/run, or a short path under /tmp where that is too long for a socket */
	char *endpoint;   /* where a running shard answers */
	char *control;    /* and takes orders */
	char *work_dir;   /* socket_dir/<pid>, for this process; removed by free */
	int lock;         /* -1: opened to read */
};

enum kx_data_mode {
	KX_DATA_READ,  /* must be there; any number of processes */
	KX_DATA_WRITE, /* made when missing; one process: KX_EBUSY names the other */
	KX_DATA_LEDGER, /* made when missing, but its store is another process's; the ledger has a lock of its own */
};

kx_status kx_data_open(const char *dir, enum kx_data_mode mode, struct kx_data **ret,
		       struct kx_error *error) KX_MUST_CHECK;
void kx_data_free(struct kx_data *data);
void kx_data_cleanup(struct kx_data **data);

/* Makes the folder a data directory, by its FORMAT. */
kx_status kx_data_mark(const char *dir, struct kx_error *error) KX_MUST_CHECK;

/* A process that writes, and so answers at endpoint, is there. */
bool kx_data_busy(const struct kx_data *data);

/* A folder for the sockets of a process without a data directory; those that killed processes left are removed. The
 * caller removes it (kx_fs_remove_tree) and frees the path. */
kx_status kx_data_scratch(char **ret, struct kx_error *error) KX_MUST_CHECK;

#endif
