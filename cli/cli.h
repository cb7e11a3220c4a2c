/* What the commands share. Layer: cli, the top: it may use every role and puts them together. */
#ifndef KX_CLI_CLI_H
#define KX_CLI_CLI_H

#include <stdbool.h>

#include "common/base/thread.h"
#include "common/config/config.h"

/* Exit statuses, promised in the README. */
enum kx_exit {
	KX_EXIT_DONE = 0,
	KX_EXIT_FAILED = 1,
	KX_EXIT_USAGE = 2,
	KX_EXIT_QUARANTINED = 3, /* done, but some inputs were quarantined */
	KX_EXIT_STOPPED = 130,
};

enum kx_command_bit {
	KX_CMD_INDEX = 1u << 0,
	KX_CMD_SIMILAR = 1u << 1,
	KX_CMD_CLASSIFY = 1u << 2,
	KX_CMD_STATUS = 1u << 3,
	KX_CMD_DEAD = 1u << 4,
	KX_CMD_VERIFY = 1u << 5,
	KX_CMD_EXPORT = 1u << 6,
	KX_CMD_BUNDLE = 1u << 7,
	KX_CMD_COORDINATOR = 1u << 8,
	KX_CMD_WORKER = 1u << 9,
	KX_CMD_SHARD = 1u << 10,
	KX_CMD_PROBE = 1u << 11,
	KX_CMD_FRAMES = 1u << 12,
	KX_CMD_REPLAY = 1u << 13,
	KX_CMD_DUPLICATES = 1u << 14,
	KX_CMD_SERVE = 1u << 16,
};

/* Commands that start decoders. */
#define KX_CMDS_DECODE \
	(KX_CMD_INDEX | KX_CMD_SIMILAR | KX_CMD_CLASSIFY | KX_CMD_WORKER | KX_CMD_DEAD | KX_CMD_COORDINATOR | \
	 KX_CMD_REPLAY | KX_CMD_PROBE | KX_CMD_FRAMES | KX_CMD_SERVE)

struct kx_command {
	const char *name;
	unsigned bit;
	const char *arguments; /* "SOURCE..." for the usage line */
	const char *summary;   /* one line */
	const char *about;     /* a paragraph for --help */
	int (*run)(const struct kx_config *config);
};

/* The option table of all commands (options.c). */
const struct kx_option *kx_options(size_t *ret_len);

/* SIGINT and SIGTERM ask it. Valid from main's first lines on. */
extern struct kx_stop kx_interrupted;

/* Logs the error once and returns the exit status that fits it. */
int kx_fail(const struct kx_error *error);
/* A wrong use that the option table can't see; returns KX_EXIT_USAGE. */
int kx_usage(const char *format, ...) KX_PRINTF(1, 2);

int kx_cmd_index(const struct kx_config *config);
int kx_cmd_similar(const struct kx_config *config);
int kx_cmd_duplicates(const struct kx_config *config);
int kx_cmd_classify(const struct kx_config *config);
int kx_cmd_status(const struct kx_config *config);
int kx_cmd_dead(const struct kx_config *config);
int kx_cmd_replay(const struct kx_config *config);
int kx_cmd_verify(const struct kx_config *config);
int kx_cmd_verify_store(const struct kx_config *config); /* also without a ledger */
int kx_cmd_export(const struct kx_config *config);
int kx_cmd_probe(const struct kx_config *config);
int kx_cmd_frames(const struct kx_config *config);
int kx_cmd_bundle(const struct kx_config *config);
int kx_cmd_coordinator(const struct kx_config *config);
int kx_cmd_worker(const struct kx_config *config);
int kx_cmd_shard(const struct kx_config *config);
int kx_cmd_care(const struct kx_config *config);         /* shard with a verb */
int kx_cmd_spread(const struct kx_config *config);       /* shard spread */
int kx_cmd_serve(const struct kx_config *config);

#endif
