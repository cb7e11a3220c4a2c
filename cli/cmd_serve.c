/* Serve: JSON over HTTP, from a store or from shards. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/served.h"
#include "common/base/str.h"
#include "gateway/run/gateway.h"

#define LOOK_MS 200
#define THREADS_LEAST 4u       /* a thumbnail must not keep queries waiting */
#define THREADS_WITH_SHARDS 32u /* they only wait */

static unsigned threads_of(const struct kx_config *config)
{
	unsigned wanted = (unsigned)kx_config_int(config, "threads");
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	if (wanted > 0)
		return wanted;
	if (kx_config_text(config, "shards") != NULL)
		return THREADS_WITH_SHARDS;
	return cores > (long)THREADS_LEAST ? (unsigned)cores : THREADS_LEAST;
}

/* Names of files come from a store that is ours; what shards elsewhere name need not be meant for this host. */
static bool serves_media(const struct kx_config *config)
{
	const char *media = kx_config_text(config, "media");
	if (strcmp(media, "auto") == 0)
		return kx_config_text(config, "shards") == NULL || kx_config_text(config, "media-root") != NULL;
	return strcmp(media, "on") == 0;
}

static void wait_for_end(struct kx_served *served)
{
	while (!kx_stop_asked(&kx_interrupted)) {
		struct pollfd asked = {.fd = kx_interrupted.fd, .events = POLLIN};
		poll(&asked, 1, LOOK_MS);
		kx_served_look(served);
	}
}

static kx_status serve(const struct kx_config *config, struct kx_served *served, const char *media_root,
		       struct kx_error *error)
{
	struct kx_gateway *gateway = NULL;
	struct kx_gateway_options options = {
		.backend = kx_served_backend(served),
		.listen = kx_config_text(config, "listen"),
		.anywhere = kx_config_flag(config, "listen-anywhere"),
		.threads = threads_of(config),
		.queue_max = (unsigned)kx_config_int(config, "queue"),
		.connections_max = (unsigned)kx_config_int(config, "connections"),
		.request_ms = (unsigned)kx_config_int(config, "timeout"),
		.body_max = (size_t)kx_config_int(config, "body-limit") << 20,
		.k_max = (uint32_t)kx_config_int(config, "k-limit"),
		.batch_max = (uint32_t)kx_config_int(config, "batch-limit"),
		.media = serves_media(config),
		.media_root = media_root,
		.allow_origin = kx_config_text(config, "allow-origin"),
	};
	kx_status status = kx_gateway_start(&options, &gateway, error);
	if (status != KX_OK)
		return status;
	if (!kx_config_flag(config, "quiet")) {
		printf("http://%s answers from %s\n", kx_gateway_address(gateway), kx_served_name(served));
		fflush(stdout);
	}
	wait_for_end(served);
	kx_gateway_stop(gateway);
	return KX_OK;
}

int kx_cmd_serve(const struct kx_config *config)
{
	struct kx_error error = {0};
	struct kx_served *served = NULL;
	const char *root = kx_config_text(config, "media-root");
	if (kx_config_argc(config) != 0)
		return kx_usage("serve takes no arguments: kinodex serve [--data DIR] [--listen 127.0.0.1:8080]");
	KX_CLEANUP(kx_cleanup_free) char *real_root = root != NULL ? realpath(root, NULL) : NULL;
	if (root != NULL && real_root == NULL)
		return kx_usage("--media-root %s: there is no such folder", root);
	kx_status status = kx_served_open(config, &served, &error);
	if (status == KX_OK)
		status = serve(config, served, real_root, &error);
	kx_served_free(served);
	return status == KX_OK ? KX_EXIT_DONE : kx_fail(&error);
}
