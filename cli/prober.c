#include "cli/prober.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/data.h"
#include "cli/engine.h"
#include "common/base/fs.h"
#include "worker/media/media.h"

kx_status kx_cli_prober_open(const char *path, struct kx_cli_prober **ret, struct kx_error *error)
{
	KX_CLEANUP(kx_cli_prober_cleanup) struct kx_cli_prober *prober = calloc(1, sizeof(*prober));
	KX_CLEANUP(kx_cleanup_free) char *program = kx_engine_program();
	if (prober == NULL)
		return kx_error_nomem(error);
	prober->fd = -1;
	if (program == NULL)
		return kx_error_nomem(error);
	if (path != NULL)
		prober->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (path != NULL && prober->fd < 0)
		return kx_error_from_errno(error, errno, "opening %s", path);
	kx_status status = kx_data_scratch(&prober->scratch, error);
	if (status == KX_OK)
		status = kx_prober_new(program, prober->scratch, &prober->prober, error);
	if (status == KX_OK)
		*ret = KX_STEAL(prober);
	return status;
}

void kx_cli_prober_free(struct kx_cli_prober *prober)
{
	if (prober == NULL)
		return;
	kx_prober_free(prober->prober);
	if (prober->scratch != NULL)
		(void)!kx_fs_remove_tree(prober->scratch, NULL); /* sockets at most are left, and swept by a later run */
	if (prober->fd >= 0)
		close(prober->fd);
	free(prober->scratch);
	free(prober);
}

void kx_cli_prober_cleanup(struct kx_cli_prober **prober)
{
	kx_cli_prober_free(*prober);
}
