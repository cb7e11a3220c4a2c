/* One table of options drives the command line, KINODEX_* environment, the configuration file, --help and the
 * manual page. Layer: config.
 *
 * A program declares an array of struct kx_option, most of them shared (cli/options.h). Values come, later ones
 * winning, from: defaults, the file (lines `key = value`; a # at the start of a line or after a blank begins a
 * comment), the environment (KINODEX_DATA_DIR for data-dir; empty is unset), the command line (--data-dir=X,
 * --data-dir X, -k X, -kX; flags --json, --json=false, --no-json, and -qv for -q -v). Unknown keys in the file and on
 * the command line are errors that name the nearest one. Each value is checked against its type and range when it is
 * set. A key may stand in the table twice for different commands: the row of the parsed command is then meant.
 */
#ifndef KX_CONFIG_CONFIG_H
#define KX_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/base/buf.h"
#include "common/base/error.h"

enum kx_option_type { KX_OPTION_FLAG, KX_OPTION_INT, KX_OPTION_REAL, KX_OPTION_TEXT, KX_OPTION_CHOICE };

struct kx_option {
	const char *key;     /* "data-dir" */
	char letter;         /* short form, or 0 */
	enum kx_option_type type;
	const char *unit;    /* "seconds", "bytes", shown in help; for TEXT the placeholder ("DIR") */
	double min, max;     /* INT, REAL; both included; equal means any number, INFINITY an open end */
	const char *value;   /* default, as text; NULL for none: false, 0 or NULL then */
	const char *choices; /* CHOICE: "exact|keyframe" */
	const char *help;
	unsigned commands;   /* bit set of the commands that take it; the caller's bits */
};

/* Parsed values; refers to the table, which must outlive it. Read-only after parsing, and then safe to read from any
 * thread. */
struct kx_config;

/* Parses everything for one command. args: what follows the command's name. Positional arguments are kept in
 * order and copied; "--" ends options; "-" is positional. file: a path or NULL; a file that is named and missing is
 * an error. The file and the environment may hold what other commands take; the command line may not. Blocks on
 * reading the file. Errors are KX_EINVAL (or KX_ENOMEM), fatal, with a message such as:
 * unknown option --segmant: did you mean --segment? */
kx_status kx_config_parse(const struct kx_option *table, size_t table_len, unsigned command, const char *file,
			  int argc, char **argv, struct kx_config **ret, struct kx_error *error) KX_MUST_CHECK;
void kx_config_free(struct kx_config *config);
void kx_config_cleanup(struct kx_config **config);

/* Getters assert that the key is in the table with that type: a programmer's error otherwise. */
bool kx_config_flag(const struct kx_config *config, const char *key);
int64_t kx_config_int(const struct kx_config *config, const char *key);
double kx_config_real(const struct kx_config *config, const char *key);
const char *kx_config_text(const struct kx_config *config, const char *key); /* NULL when unset; TEXT and CHOICE */

size_t kx_config_argc(const struct kx_config *config);
const char *kx_config_arg(const struct kx_config *config, size_t i);

/* Appends the options of a command, wrapped to width columns (at least 40), with defaults, ranges and units. Fails
 * when out of memory or over out->max. */
kx_status kx_config_help(const struct kx_option *table, size_t table_len, unsigned command, size_t width,
			 struct kx_buf *out) KX_MUST_CHECK;

#endif
