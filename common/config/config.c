#include "common/config/config.h"

#include <assert.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/fs.h"
#include "common/base/str.h"
#include "common/config/option.h"

#define FILE_MAX_BYTES (1 << 20)
#define ENVIRONMENT_PREFIX "KINODEX_"

struct kx_config {
	const struct kx_option *table;
	size_t table_len;
	unsigned command;
	struct kx_option_value *values; /* one for each row of the table */
	char **args;
	size_t argc;
};

void kx_config_free(struct kx_config *config)
{
	if (!config)
		return;
	for (size_t i = 0; config->values && i < config->table_len; i++)
		free(config->values[i].text);
	for (size_t i = 0; i < config->argc; i++)
		free(config->args[i]);
	free(config->values);
	free(config->args);
	free(config);
}

void kx_config_cleanup(struct kx_config **config)
{
	kx_config_free(*config);
}

static const struct kx_option *find(const struct kx_config *config, const char *key)
{
	return kx_option_find(config->table, config->table_len, config->command, key);
}

static kx_status set(struct kx_config *config, const struct kx_option *option, const char *text,
		     struct kx_error *error)
{
	return kx_option_set(option, text, &config->values[option - config->table], error);
}

static kx_status load_defaults(struct kx_config *config, struct kx_error *error)
{
	for (size_t i = 0; i < config->table_len; i++) {
		const struct kx_option *option = &config->table[i];
		if (!option->value)
			continue;
		kx_status status = kx_option_set(option, option->value, &config->values[i], error);
		if (status)
			return kx_error_prefix(error, status, "default of %s", option->key);
	}
	return KX_OK;
}

/* Cuts blanks off both ends, in place. */
static char *trim(char *text)
{
	char *end = text + strlen(text);

	while (end > text && isspace((unsigned char)end[-1]))
		end--;
	*end = '\0';
	while (isspace((unsigned char)*text))
		text++;
	return text;
}

static void cut_comment(char *line)
{
	for (char *at = line; *at; at++) {
		if (*at == '#' && (at == line || isspace((unsigned char)at[-1]))) {
			*at = '\0';
			return;
		}
	}
}

static kx_status unknown_key(const struct kx_config *config, const char *key, struct kx_error *error)
{
	const char *nearest = kx_option_nearest(config->table, config->table_len, ~0U, key);

	if (nearest)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "unknown key %s: did you mean %s?", key,
				    nearest);
	return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "unknown key %s", key);
}

static kx_status load_line(struct kx_config *config, char *line, struct kx_error *error)
{
	cut_comment(line);
	char *key = trim(line);
	if (!*key)
		return KX_OK;

	char *equals = strchr(key, '=');
	if (!equals)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "\"%s\" has no value: write key = value", key);
	*equals = '\0';
	key = trim(key);
	const struct kx_option *option = find(config, key);
	if (!option)
		return unknown_key(config, key, error);
	kx_status status = set(config, option, trim(equals + 1), error);
	return status ? kx_error_prefix(error, status, "%s", key) : KX_OK;
}

static kx_status load_file(struct kx_config *config, const char *path, struct kx_error *error)
{
	struct kx_buf buf KX_CLEANUP(kx_buf_done) = {0};
	struct kx_error cause = {0};
	int number = 1;

	if (kx_fs_read(path, FILE_MAX_BYTES, &buf, &cause))
		return kx_error_set(error, cause.status == KX_ENOMEM ? KX_ENOMEM : KX_EINVAL, KX_ERROR_FATAL,
				    "configuration file %s", cause.message);
	if (strlen((char *)buf.data) != buf.len)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "configuration file %s: is not text", path);

	char *rest = (char *)buf.data;
	for (char *line = strsep(&rest, "\n"); line; line = strsep(&rest, "\n"), number++) {
		kx_status status = load_line(config, line, error);
		if (status)
			return kx_error_prefix(error, status, "%s:%d", path, number);
	}
	return KX_OK;
}

/* data-dir is KINODEX_DATA_DIR. */
static char *environment_name(const char *key)
{
	char *name = kx_strf("%s%s", ENVIRONMENT_PREFIX, key);

	for (char *at = name; at && *at; at++)
		*at = *at == '-' ? '_' : (char)toupper((unsigned char)*at);
	return name;
}

static kx_status load_environment(struct kx_config *config, struct kx_error *error)
{
	for (size_t i = 0; i < config->table_len; i++) {
		const struct kx_option *option = &config->table[i];
		char *name KX_CLEANUP(kx_cleanup_free) = environment_name(option->key);

		if (!name)
			return kx_error_nomem(error);
		const char *text = getenv(name);
		if (!text || !*text || option != find(config, option->key))
			continue;
		kx_status status = set(config, option, text, error);
		if (status)
			return kx_error_prefix(error, status, "%s", name);
	}
	return KX_OK;
}

/* What is left of the command line. */
struct words {
	int argc;
	char **argv;
	bool only_positional; /* after "--" */
};

static kx_status unknown_option(const struct kx_config *config, const char *key, struct kx_error *error)
{
	const char *nearest = kx_option_nearest(config->table, config->table_len, config->command, key);

	if (nearest)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "unknown option --%s: did you mean --%s?", key,
				    nearest);
	return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "unknown option --%s: see --help", key);
}

static kx_status foreign_option(const char *key, struct kx_error *error)
{
	return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL,
			    "option --%s belongs to another command: see --help for the options of this one", key);
}

/* Sets an option from text, or from the next word when text is NULL. A word that looks like an option is not taken
 * for a value: the value was forgotten, far more likely. */
static kx_status take_value(struct kx_config *config, struct words *words, const struct kx_option *option,
			    const char *text, struct kx_error *error)
{
	if (!text && option->type == KX_OPTION_FLAG)
		text = "true";
	if (!text && (!words->argc || kx_str_starts(words->argv[0], "--")))
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "option --%s needs a value: write --%s=VALUE",
				    option->key, option->key);
	if (!text) {
		text = *words->argv++;
		words->argc--;
	}
	kx_status status = set(config, option, text, error);
	return status ? kx_error_prefix(error, status, "--%s", option->key) : KX_OK;
}

/* --no-json. The caller has found no option that is really called so. */
static const struct kx_option *find_negated(const struct kx_config *config, const char *key)
{
	const struct kx_option *option = kx_str_starts(key, "no-") ? find(config, key + 3) : NULL;

	return option && option->type == KX_OPTION_FLAG ? option : NULL;
}

static kx_status take_long(struct kx_config *config, struct words *words, const char *word, struct kx_error *error)
{
	size_t key_len = strcspn(word, "=");
	const char *text = word[key_len] ? word + key_len + 1 : NULL;
	char *key KX_CLEANUP(kx_cleanup_free) = kx_strndup(word, key_len);

	if (!key)
		return kx_error_nomem(error);
	const struct kx_option *option = find(config, key);
	const struct kx_option *negated = option ? NULL : find_negated(config, key);
	if (!option && !negated)
		return unknown_option(config, key, error);
	if (negated && text)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "option --%s takes no value", key);
	if (!((option ? option : negated)->commands & config->command))
		return foreign_option(key, error);
	return negated ? set(config, negated, "false", error) : take_value(config, words, option, text, error);
}

static const struct kx_option *find_letter(const struct kx_config *config, char letter)
{
	const struct kx_option *other = NULL;

	for (size_t i = 0; i < config->table_len; i++) {
		if (!config->table[i].letter || config->table[i].letter != letter)
			continue;
		if (config->table[i].commands & config->command)
			return &config->table[i];
		other = &config->table[i];
	}
	return other;
}

/* "k5", or flags run together: "qv". */
static kx_status take_letters(struct kx_config *config, struct words *words, const char *letters,
			      struct kx_error *error)
{
	for (; *letters; letters++) {
		const struct kx_option *option = find_letter(config, *letters);
		if (!option)
			return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "unknown option -%c: see --help",
					    *letters);
		if (!(option->commands & config->command))
			return foreign_option(option->key, error);
		if (option->type != KX_OPTION_FLAG)
			return take_value(config, words, option, letters[1] ? letters + 1 : NULL, error);
		kx_status status = take_value(config, words, option, NULL, error);
		if (status)
			return status;
	}
	return KX_OK;
}

static kx_status take_positional(struct kx_config *config, const char *word, struct kx_error *error)
{
	config->args[config->argc] = kx_strdup(word);
	if (!config->args[config->argc])
		return kx_error_nomem(error);
	config->argc++;
	return KX_OK;
}

static kx_status take_word(struct kx_config *config, struct words *words, struct kx_error *error)
{
	const char *word = *words->argv++;

	words->argc--;
	if (words->only_positional || word[0] != '-' || !word[1])
		return take_positional(config, word, error);
	if (word[1] != '-')
		return take_letters(config, words, word + 1, error);
	if (word[2])
		return take_long(config, words, word + 2, error);
	words->only_positional = true;
	return KX_OK;
}

kx_status kx_config_parse(const struct kx_option *table, size_t table_len, unsigned command, const char *file,
			  int argc, char **argv, struct kx_config **ret, struct kx_error *error)
{
	struct kx_config *config KX_CLEANUP(kx_config_cleanup) = calloc(1, sizeof(*config));
	struct words words = {.argc = argc, .argv = argv};

	if (!config)
		return kx_error_nomem(error);
	config->table = table;
	config->table_len = table_len;
	config->command = command;
	config->values = calloc(table_len + 1, sizeof(*config->values));
	config->args = calloc((size_t)argc + 1, sizeof(*config->args));
	if (!config->values || !config->args)
		return kx_error_nomem(error);

	kx_status status = load_defaults(config, error);
	if (!status && file)
		status = load_file(config, file, error);
	if (!status)
		status = load_environment(config, error);
	while (!status && words.argc)
		status = take_word(config, &words, error);
	if (status)
		return status;
	*ret = KX_STEAL(config);
	return KX_OK;
}

static const struct kx_option_value *value_of(const struct kx_config *config, const char *key, unsigned types)
{
	const struct kx_option *option = find(config, key);

	assert(option && "no such option in the table");
	assert((types & (1U << option->type)) && "the option has another type");
	(void)types;
	return &config->values[option - config->table];
}

bool kx_config_flag(const struct kx_config *config, const char *key)
{
	return value_of(config, key, 1U << KX_OPTION_FLAG)->flag;
}

int64_t kx_config_int(const struct kx_config *config, const char *key)
{
	return value_of(config, key, 1U << KX_OPTION_INT)->integer;
}

double kx_config_real(const struct kx_config *config, const char *key)
{
	return value_of(config, key, 1U << KX_OPTION_REAL)->real;
}

const char *kx_config_text(const struct kx_config *config, const char *key)
{
	return value_of(config, key, 1U << KX_OPTION_TEXT | 1U << KX_OPTION_CHOICE)->text;
}

size_t kx_config_argc(const struct kx_config *config)
{
	return config->argc;
}

const char *kx_config_arg(const struct kx_config *config, size_t i)
{
	assert(i < config->argc);
	return config->args[i];
}
