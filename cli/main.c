/* kinodex: one executable, each role and each question a subcommand. */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli/cli.h"
#include "common/base/log.h"
#include "common/base/str.h"
#include "common/learn/learn.h"
#include "worker/pipeline/pipeline.h"

#define KX_VERSION_TEXT "kinodex " KX_VERSION

struct kx_stop kx_interrupted;

static const struct kx_command commands[] = {
	{"index", KX_CMD_INDEX, "SOURCE...", "index folders, files, manifests or addresses, all roles in this process",
	 "SOURCE is a folder (searched to its bottom), a file, an address (https://host/a.mp4, "
	 "s3://bucket/a.mp4, s3://bucket/prefix/), or a manifest: .jsonl or .csv with the fields id and path (or url: file, "
	 "http, https, s3), optional title, labels, duration_ms, language, visibility and attributes. Only what is new, changed or was unfinished is "
	 "decoded. Ctrl-C stops and keeps what is done; the same command goes on. Exit status 3: some inputs were "
	 "quarantined; kinodex dead list says why.",
	 kx_cmd_index},
	{"similar", KX_CMD_SIMILAR, "ID|FILE|URL", "the nearest videos, and the moments that match",
	 "ID as kinodex status --state all lists it. A FILE or URL that is not indexed is embedded on the spot. The score is the "
	 "weighted mean of the cosines of picture and sound over what both videos have. A filter is clauses with and, or, not and "
	 "brackets: class:\"ice hockey\">0.5, label:x, language=en, duration<10m, added>now-7d, source:/films/*, title~word, "
	 "has:audio, and what the manifest says in attributes.",
	 kx_cmd_similar},
	{"duplicates", KX_CMD_DUPLICATES, "", "which videos show the same, and from when on",
	 "Compares all moments, then frame by frame: re-encoded, scaled and cut copies are found, and a clip inside a longer "
	 "video where it begins. What was found is kept in the data directory for similar --group duplicates and the filter "
	 "has:duplicate_of.",
	 kx_cmd_duplicates},
	{"classify", KX_CMD_CLASSIFY, "ID|FILE|URL", "what a video shows and sounds like, whole and moment by moment",
	 "ImageNet classes for the picture, AudioSet classes for the sound, and with --actions Kinetics classes.",
	 kx_cmd_classify},
	{"status", KX_CMD_STATUS, "", "what the data directory holds and how each input ended", "", kx_cmd_status},
	{"dead", KX_CMD_DEAD, "list | show ID | replay ID...",
	 "the dead letters: inputs that were quarantined, and why",
	 "replay tries them again, whether or not they changed.", kx_cmd_dead},
	{"replay", KX_CMD_REPLAY, "DIR|ID", "run a failure again, from the capsule that it left",
	 "A capsule is a folder with the reason, the decoder's words, the job, the versions, and the input or where it is; "
	 "kinodex dead show ID names that of an input. It is decoded again in the sandbox, under the same limits. Exit status "
	 "0: it fails for the same reason; 1: it does not. With --reduce the capsule then gets the smallest part of the "
	 "input that still does, as far as a minute of tries finds it.",
	 kx_cmd_replay},
	{"verify", KX_CMD_VERIFY, "", "read everything back and prove it",
	 "Checks every checksum, the ledger's sum, and that each video has the moments it says and comes out of them again "
	 "bit by bit. The digest is the same for the same catalogue and settings however it was indexed.",
	 kx_cmd_verify},
	{"export", KX_CMD_EXPORT, "", "embeddings, classes and metadata for other programs", "", kx_cmd_export},
	{"probe", KX_CMD_PROBE, "FILE", "what is in a file, as the decoder sees it",
	 "Every stream, which are taken and why, and whether the file can be split and decoded selectively. Reads the file to "
	 "its end in a decoder process.",
	 kx_cmd_probe},
	{"frames", KX_CMD_FRAMES, "FILE", "the sampled frames as PNG files, to look at",
	 "Upright, in their true aspect, named by number and presentation time; frames.jsonl says how far each is from its place "
	 "on the grid.",
	 kx_cmd_frames},
	{"bundle", KX_CMD_BUNDLE, "check DIR", "check a model bundle: hashes and golden pairs", "", kx_cmd_bundle},
	{"coordinator", KX_CMD_COORDINATOR, "SOURCE...", "the coordinator alone, over Kafka (--brokers)",
	 "Scans, probes and plans the sources, publishes jobs, and ends when every input has ended.",
	 kx_cmd_coordinator},
	{"worker", KX_CMD_WORKER, "", "a worker alone, over Kafka (--brokers), until it is stopped", "",
	 kx_cmd_worker},
	{"shard", KX_CMD_SHARD, "[compact | checkpoint DIR | spread OUT [DIR...] | verify]",
	 "a shard alone, over Kafka (--brokers), until it is stopped; or care for a store",
	 "compact clears away what was replaced and deleted. checkpoint makes DIR a data directory that answers as this one "
	 "does now, whole or not at all; files are shared where the file system can. Both ask the process that holds the "
	 "store, where one does. spread makes the stores of all parts (DIR..., or --data) anew as --shards of them, in "
	 "OUT/part-0-of-N and so on, while no shard runs; nothing is decoded again, and what was there stays. verify is kinodex verify, also of a shard's store, which has no ledger.",
	 kx_cmd_shard},
	{"serve", KX_CMD_SERVE, "", "JSON over HTTP, from the data directory or from shards, until it is stopped",
	 "GET /openapi.yaml describes the API, docs/client.md shows a client. Beside a process that writes to the directory, "
	 "that one is asked; otherwise its store is opened to read, and again when somebody has written to it. With --shards "
	 "every query goes to all of them; an answer in which one is missing says so. Nobody is asked who they are.",
	 kx_cmd_serve},
};

static void on_signal(int number)
{
	(void)number;
	kx_stop_ask(&kx_interrupted);
}

/* A socket whose other end is gone must not end us; `kinodex export | head` should. */
static void catch_signals(bool only_prints)
{
	struct sigaction ask = {.sa_handler = on_signal};
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	sigemptyset(&ask.sa_mask);
	sigemptyset(&ignore.sa_mask);
	sigaction(SIGINT, &ask, NULL);
	sigaction(SIGTERM, &ask, NULL);
	if (!only_prints)
		sigaction(SIGPIPE, &ignore, NULL);
}

/* Who reads a store keeps each of its files open, of 64 MiB at most: with the usual 1,024 one of 60 GiB would not open. The
 * hard limit is what the machine's owner means. Decoders set their own. */
static void allow_files(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)!setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static size_t terminal_width(void)
{
	struct winsize size;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 40)
		return size.ws_col;
	return 100;
}

static void print_overview(FILE *to)
{
	fprintf(to, "%s: index video catalogues and ask what is alike.\n\nUsage: kinodex COMMAND [OPTIONS] [ARGUMENTS]\n\n",
		KX_VERSION_TEXT);
	for (size_t i = 0; i < KX_ARRAY_LEN(commands); i++)
		fprintf(to, "  %-12s %s\n", commands[i].name, commands[i].summary);
	fprintf(to,
		"\nkinodex COMMAND --help shows a command's options. Each can also stand in a file (--config) as\n"
		"`key = value`, or in the environment: KINODEX_DATA for --data.\n");
}

static void print_wrapped(const char *text, size_t width)
{
	size_t column = 0;
	for (size_t len; *text != '\0'; text += len + strspn(text + len, " ")) {
		len = strcspn(text, " ");
		if (column > 0 && column + 1 + len > width) {
			putchar('\n');
			column = 0;
		}
		column += (size_t)printf("%s%.*s", column > 0 ? " " : "", (int)len, text);
	}
	putchar('\n');
}

static int print_command_help(const struct kx_command *command)
{
	size_t width = terminal_width();
	struct kx_buf text = {.max = 1 << 20};
	size_t len;
	const struct kx_option *options = kx_options(&len);
	kx_status status = kx_config_help(options, len, command->bit, width, &text);
	if (status == KX_OK) {
		printf("Usage: kinodex %s [OPTIONS] %s\n\n%s.\n", command->name, command->arguments, command->summary);
		if (*command->about)
			print_wrapped(command->about, width);
		printf("\nOptions:\n%s", (const char *)text.data);
	}
	kx_buf_done(&text);
	return status == KX_OK ? KX_EXIT_DONE : KX_EXIT_FAILED;
}

static const struct kx_command *find_command(const char *name)
{
	for (size_t i = 0; i < KX_ARRAY_LEN(commands); i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static int unknown_command(const char *name)
{
	const struct kx_command *nearest = &commands[0];
	for (size_t i = 1; i < KX_ARRAY_LEN(commands); i++)
		if (kx_edit_distance(name, commands[i].name) < kx_edit_distance(name, nearest->name))
			nearest = &commands[i];
	return kx_usage("unknown command %s: did you mean %s? kinodex --help lists all", name, nearest->name);
}

int kx_fail(const struct kx_error *error)
{
	fprintf(stderr, "kinodex: %s\n", error->message);
	return error->status == KX_ECANCELED ? KX_EXIT_STOPPED : KX_EXIT_FAILED;
}

int kx_usage(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fputs("kinodex: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	return KX_EXIT_USAGE;
}

/* --config decides which file is read, so it is looked for before the rest is parsed. */
static const char *config_file(int argc, char **argv)
{
	for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (kx_str_starts(argv[i], "--config="))
			return argv[i] + strlen("--config=");
		if (strcmp(argv[i], "--config") == 0 && i + 1 < argc)
			return argv[i + 1];
	}
	return getenv("KINODEX_CONFIG");
}

static bool wants_help(int argc, char **argv)
{
	for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			return true;
	return false;
}

/* Decoder hosts read the option from their environment: it is a matter of the whole process, wherever it starts one. */
static bool pass_sandbox_on(const struct kx_config *config)
{
	const char *sandbox = kx_config_text(config, "sandbox");
	if (strcmp(sandbox, "off") == 0)
		kx_log(KX_LOG_WARN, "--sandbox off: a hostile file may do whatever this user may");
	return setenv("KINODEX_SANDBOX", sandbox, 1) == 0;
}

static int run_command(const struct kx_command *command, int argc, char **argv)
{
	if (wants_help(argc, argv))
		return print_command_help(command);
	size_t len;
	const struct kx_option *options = kx_options(&len);
	KX_CLEANUP(kx_config_cleanup) struct kx_config *config = NULL;
	struct kx_error error = {0};
	if (kx_config_parse(options, len, command->bit, config_file(argc, argv), argc, argv, &config, &error) != KX_OK)
		return kx_usage("%s", error.message);
	if (kx_config_flag(config, "verbose"))
		kx_log_set_level(KX_LOG_INFO);
	if ((command->bit & KX_CMDS_DECODE) && !pass_sandbox_on(config))
		return kx_fail(&(struct kx_error){.status = KX_ENOMEM, .message = "out of memory"});
	if (kx_stop_init(&kx_interrupted, &error) != KX_OK)
		return kx_fail(&error);
	catch_signals((command->bit & (KX_CMD_STATUS | KX_CMD_EXPORT | KX_CMD_VERIFY | KX_CMD_PROBE)) != 0);
	allow_files();
	kx_learn_init();
	int status = command->run(config);
	kx_stop_done(&kx_interrupted);
	if (status == KX_EXIT_DONE && (fflush(stdout) != 0 || ferror(stdout)))
		return kx_fail(&(struct kx_error){.status = KX_EIO, .message = "can't write to standard output"});
	return status;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		print_overview(stderr);
		return KX_EXIT_USAGE;
	}
	const char *name = argv[1];
	if (strcmp(name, "decoder-host") == 0)
		return kx_decoder_host_main();
	if (strcmp(name, "--version") == 0) {
		puts(KX_VERSION_TEXT);
		return KX_EXIT_DONE;
	}
	if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
		const struct kx_command *about = argc > 2 ? find_command(argv[2]) : NULL;
		if (about != NULL)
			return print_command_help(about);
		print_overview(stdout);
		return KX_EXIT_DONE;
	}
	const struct kx_command *command = find_command(name);
	return command != NULL ? run_command(command, argc - 2, argv + 2) : unknown_command(name);
}
