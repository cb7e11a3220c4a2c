#include "worker/pipeline/channel.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/base/fs.h"
#include "common/base/log.h"
#include "common/base/str.h"

#define QUEUE_MAX 1024
#define HOST_STARTS 5 /* what kills it at random must not end a run by chance */
#define HOST_START_MS 60000 /* a crowded machine takes many times the usual */

static kx_status bind_socket(struct kx_channel *channel, const char *run_dir, struct kx_error *error)
{
	static atomic_uint serial;
	KX_CLEANUP(kx_cleanup_free) char *endpoint = NULL;

	channel->path = kx_strf("%s/decode-%d-%u", run_dir, (int)getpid(), atomic_fetch_add(&serial, 1));
	if (!channel->path)
		return kx_error_nomem(error);
	endpoint = kx_strf("ipc://%s", channel->path);
	if (!endpoint)
		return kx_error_nomem(error);
	return kx_wire_server(channel->wire, endpoint, QUEUE_MAX, &channel->socket, error);
}

kx_status kx_channel_start_host(struct kx_channel *channel, struct kx_error *error)
{
	kx_status status = KX_EIO;

	for (int i = 0; i < HOST_STARTS && status == KX_EIO; i++) {
		kx_host_stop(&channel->host);
		status = kx_host_start(&channel->host, channel->program, error);
		if (status == KX_OK)
			status = kx_host_wait_ready(&channel->host, HOST_START_MS, error);
	}
	return status;
}

static kx_status join_host(struct kx_channel *channel, struct kx_host *beside, struct kx_error *error)
{
	kx_status status = kx_host_join(&channel->host, beside, error);

	if (status == KX_OK)
		status = kx_host_wait_ready(&channel->host, HOST_START_MS, error);
	if (status != KX_OK)
		kx_host_stop(&channel->host);
	return status;
}

kx_status kx_channel_open(struct kx_channel *channel, const char *program, const char *run_dir, struct kx_host *beside,
			  struct kx_error *error)
{
	kx_status status = kx_fs_mkdirs(run_dir, error);

	*channel = (struct kx_channel){.host = {.fd = -1}};
	if (status != KX_OK)
		return status;
	channel->program = kx_strdup(program);
	if (!channel->program)
		return kx_error_nomem(error);
	status = kx_wire_new(&channel->wire, error);
	if (status == KX_OK)
		status = bind_socket(channel, run_dir, error);
	if (status == KX_OK && (!beside || join_host(channel, beside, error) != KX_OK))
		status = kx_channel_start_host(channel, error);
	if (status != KX_OK)
		kx_channel_close(channel);
	return status;
}

void kx_channel_close(struct kx_channel *channel)
{
	kx_host_stop(&channel->host);
	if (channel->socket)
		kx_wire_socket_close(channel->socket, 0);
	if (channel->wire)
		kx_wire_free(channel->wire);
	if (channel->path)
		unlink(channel->path);
	free(channel->path);
	free(channel->program);
	*channel = (struct kx_channel){.host = {.fd = -1}};
}

const char *kx_channel_endpoint(const struct kx_channel *channel)
{
	return kx_wire_endpoint(channel->socket);
}

kx_status kx_channel_ticket(uint64_t *ret_ticket, struct kx_error *error)
{
	if (getrandom(ret_ticket, sizeof(*ret_ticket), 0) != (ssize_t)sizeof(*ret_ticket))
		return kx_error_from_errno(error, errno, "random ticket");
	*ret_ticket |= 1; /* 0 is no ticket */
	return KX_OK;
}

kx_status kx_channel_recv(struct kx_channel *channel, int timeout_ms, int wake_fd, struct kx_wire_peer *ret_peer,
			  struct kx_decode_event **ret_event, struct kx_error *error)
{
	struct kx_wire_message message = {0};
	struct kx_error bad = {0};
	kx_status status = kx_wire_recv(channel->socket, timeout_ms, wake_fd, &message, error);

	if (status != KX_OK)
		return status;
	status = kx_decode_event_unpack(message.bytes, message.len, ret_event, &bad);
	if (status == KX_OK)
		*ret_peer = message.peer;
	else
		kx_log(KX_LOG_WARN, "an event of a decoder was dropped: %s", bad.message);
	kx_wire_message_done(&message);
	return status == KX_OK ? KX_OK : KX_EAGAIN;
}
