/* Every option of every command, once. */
#include "cli/cli.h"

#define ROLES (KX_CMD_COORDINATOR | KX_CMD_WORKER | KX_CMD_SHARD)
#define PLANS (KX_CMD_INDEX | KX_CMD_COORDINATOR | KX_CMD_DEAD)
#define EMBEDS (KX_CMD_INDEX | KX_CMD_SIMILAR | KX_CMD_CLASSIFY | KX_CMD_WORKER | KX_CMD_DEAD)
#define READS (KX_CMD_SIMILAR | KX_CMD_CLASSIFY | KX_CMD_STATUS | KX_CMD_DEAD | KX_CMD_VERIFY | KX_CMD_EXPORT)
#define BUSES (KX_CMD_INDEX | KX_CMD_DEAD | ROLES)
#define PRINTS \
	(KX_CMD_INDEX | KX_CMD_COORDINATOR | KX_CMD_BUNDLE | KX_CMD_REPLAY | KX_CMD_PROBE | READS)

static const struct kx_option table[] = {
	{.key = "data", .letter = 'd', .type = KX_OPTION_TEXT, .unit = "DIR", .value = "kinodex-data",
	 .help = "the data directory: ledger, features, embeddings, classes",
	 .commands = KX_CMD_INDEX | READS | KX_CMD_REPLAY | KX_CMD_COORDINATOR | KX_CMD_SHARD},
	{.key = "bundles", .type = KX_OPTION_TEXT, .unit = "DIR",
	 .help = "folder of model bundles (default: bundles/ here or beside the build)",
	 .commands = EMBEDS | KX_CMD_COORDINATOR},
	{.key = "visual", .type = KX_OPTION_TEXT, .unit = "NAME", .value = "lite0", .help = "bundle for pictures",
	 .commands = EMBEDS | KX_CMD_COORDINATOR},
	{.key = "audio", .type = KX_OPTION_TEXT, .unit = "NAME", .value = "yamnet", .help = "bundle for sound",
	 .commands = EMBEDS | KX_CMD_COORDINATOR},
	{.key = "precision", .type = KX_OPTION_CHOICE, .choices = "auto|f32|bf16", .value = "auto",
	 .help = "arithmetic of the networks; auto: bf16 where the CPU has AMX, else f32",
	 .commands = EMBEDS | KX_CMD_COORDINATOR | KX_CMD_BUNDLE},
	{.key = "fps", .letter = 'r', .type = KX_OPTION_REAL, .unit = "frames/s", .min = 0.01, .max = 60, .value = "1",
	 .help = "frames sampled a second of video", .commands = PLANS | KX_CMD_FRAMES},
	{.key = "segment", .type = KX_OPTION_INT, .unit = "seconds", .min = 10, .max = 86400, .value = "300",
	 .help = "longest span of pictures in one job, a multiple of 10; longer videos are split",
	 .commands = PLANS},
	{.key = "decode", .type = KX_OPTION_TEXT, .unit = "MODE", .value = "exact",
	 .help = "which frame stands for an instant; exact: the one on screen then; tol=SECONDS: the cheapest to decode of "
		 "those so near; keyframe: the nearest key frame, and no other is decoded",
	 .commands = PLANS | KX_CMD_SIMILAR | KX_CMD_CLASSIFY | KX_CMD_FRAMES},
	{.key = "workers", .letter = 'w', .type = KX_OPTION_INT, .unit = "processes", .min = 0, .max = 1024,
	 .value = "0", .help = "decoder processes at a time; 0: one a core", .commands = EMBEDS},
	{.key = "streams", .type = KX_OPTION_INT, .unit = "threads", .min = 0, .max = 1024, .value = "0",
	 .help = "inference streams; 0: one a core", .commands = EMBEDS},
	{.key = "batch", .type = KX_OPTION_INT, .unit = "items", .min = 0, .max = 256, .value = "0",
	 .help = "items a network takes at once; 0: the best for the bundle", .commands = EMBEDS},
	{.key = "attempts", .type = KX_OPTION_INT, .unit = "times", .min = 1, .max = 100, .value = "3",
	 .help = "tries of a job that fails by crash, limit or fault before its input is quarantined",
	 .commands = PLANS},
	{.key = "job-wall-limit", .type = KX_OPTION_INT, .unit = "seconds", .min = 0, .max = 1e6, .value = "0",
	 .help = "time a job's decoder may take; 0: by the job's length", .commands = PLANS},
	{.key = "job-cpu-limit", .type = KX_OPTION_INT, .unit = "seconds", .min = 0, .max = 1e6, .value = "0",
	 .help = "CPU time a job's decoder may take; 0: by the job's length", .commands = PLANS},
	{.key = "job-memory-limit", .type = KX_OPTION_INT, .unit = "MiB", .min = 0, .max = 1e6, .value = "0",
	 .help = "address space a job's decoder may take; 0: 2048", .commands = PLANS},
	{.key = "sandbox", .type = KX_OPTION_CHOICE, .choices = "on|off", .value = "on",
	 .help = "keep decoders from all system calls but those they need; off: for a kernel that can't, and files that "
		 "you trust",
	 .commands = KX_CMDS_DECODE},
	{.key = "fetch-timeout", .type = KX_OPTION_INT, .unit = "seconds", .min = 1, .max = 3600, .value = "30",
	 .help = "of http, https and s3: to connect, and without a byte, before a request is tried again",
	 .commands = EMBEDS | KX_CMD_COORDINATOR},
	{.key = "brokers", .type = KX_OPTION_TEXT, .unit = "HOST:PORT,...",
	 .help = "Kafka brokers; without them the bus is inside this process", .commands = KX_CMD_INDEX | ROLES},
	{.key = "namespace", .type = KX_OPTION_TEXT, .unit = "NAME", .value = "kinodex",
	 .help = "prefix of the topics on the bus", .commands = BUSES},
	{.key = "partitions", .type = KX_OPTION_INT, .unit = "partitions", .min = 1, .max = 10000, .value = "12",
	 .help = "of topics that this run creates", .commands = BUSES},
	{.key = "listen", .type = KX_OPTION_TEXT, .unit = "ENDPOINT",
	 .help = "where the shard answers (tcp://127.0.0.1:7400); without it a socket in the data directory",
	 .commands = KX_CMD_SHARD},
	{.key = "top", .type = KX_OPTION_INT, .unit = "classes", .min = 1, .max = 20, .value = "5",
	 .help = "classes to show", .commands = KX_CMD_CLASSIFY},
	{.key = "actions", .type = KX_OPTION_FLAG,
	 .help = "also run the action bundle (i3d) over the source, which takes about half of real time",
	 .commands = KX_CMD_CLASSIFY},
	{.key = "k", .letter = 'k', .type = KX_OPTION_INT, .unit = "videos", .min = 1, .max = 10000, .value = "10",
	 .help = "nearest videos to show", .commands = KX_CMD_SIMILAR},
	{.key = "moments", .letter = 'm', .type = KX_OPTION_FLAG,
	 .help = "for each video the moments that match best, their time and ours", .commands = KX_CMD_SIMILAR},
	{.key = "moments", .letter = 'm', .type = KX_OPTION_FLAG,
	 .help = "after each video a line a moment: when each of its rows is presented, and how far from the grid",
	 .commands = KX_CMD_EXPORT},
	{.key = "weights", .type = KX_OPTION_TEXT, .unit = "visual=X,audio=Y", .value = "visual=0.6,audio=0.4",
	 .help = "how much picture and sound count where both sides have both", .commands = KX_CMD_SIMILAR},
	{.key = "state", .type = KX_OPTION_CHOICE, .choices = "all|planned|done|partial|quarantined|deleted",
	 .help = "list the inputs that ended so, one a line", .commands = KX_CMD_STATUS},
	{.key = "format", .type = KX_OPTION_CHOICE, .choices = "jsonl|npy", .value = "jsonl",
	 .help = "jsonl: a line a video on standard output; npy: arrays and ids into --out",
	 .commands = KX_CMD_EXPORT},
	{.key = "out", .letter = 'o', .type = KX_OPTION_TEXT, .unit = "DIR", .help = "folder for npy files",
	 .commands = KX_CMD_EXPORT},
	{.key = "out", .letter = 'o', .type = KX_OPTION_TEXT, .unit = "DIR", .help = "folder for the frames",
	 .commands = KX_CMD_FRAMES},
	{.key = "size", .type = KX_OPTION_TEXT, .unit = "WxH",
	 .help = "what frames have to fit into, their aspect kept; without it they are as presented",
	 .commands = KX_CMD_FRAMES},
	{.key = "all", .type = KX_OPTION_FLAG, .help = "replay every dead letter", .commands = KX_CMD_DEAD},
	{.key = "reduce", .type = KX_OPTION_FLAG,
	 .help = "look for the smallest part of the input that fails the same way, and keep that in the capsule",
	 .commands = KX_CMD_REPLAY},
	{.key = "json", .type = KX_OPTION_FLAG, .help = "for machines: JSON on standard output", .commands = PRINTS},
	{.key = "quiet", .letter = 'q', .type = KX_OPTION_FLAG, .help = "no progress, no summary; errors only",
	 .commands = KX_CMD_INDEX | KX_CMD_DEAD | ROLES},
	{.key = "verbose", .letter = 'v', .type = KX_OPTION_FLAG, .help = "say more on standard error",
	 .commands = ~0u},
	{.key = "config", .type = KX_OPTION_TEXT, .unit = "FILE", .help = "read options from lines `key = value`",
	 .commands = ~0u},
};

const struct kx_option *kx_options(size_t *ret_len)
{
	*ret_len = KX_ARRAY_LEN(table);
	return table;
}
