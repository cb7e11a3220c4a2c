#include "coordinator/run/scan.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/hash.h"
#include "common/base/str.h"
#include "coordinator/source/idset.h"
#include "coordinator/source/source.h"

#define QUEUE_MAX 32

struct kx_scan {
	const struct kx_coordinator_options *options;
	struct kx_ledger *ledger;
	void (*wake)(void *ctx);
	void *wake_ctx;
	struct kx_source **sources;
	size_t source_count;
	struct kx_idset seen; /* the thread's until it has ended */

	pthread_t thread;
	bool started;
	pthread_mutex_t mutex;
	pthread_cond_t room;
	struct kx_find *queue[QUEUE_MAX];
	size_t head, count;
	bool stopping;
	bool ended;
	struct kx_error failure;
	atomic_ullong found;
};

/* What is known of one item while it is looked at. */
struct look {
	struct kx_scan *scan;
	struct kx_find *find;
	struct kx_input *prior; /* what the ledger says of this id, or NULL */
	int fd;                 /* -1: not open; of an address, the reader's end of its stream */
	bool hashed;
	bool remote;            /* an address; content_sha256 is then the fingerprint of what it leads to */
	bool versioned;         /* a file is; an address when its server says something by which a change is seen */
};

void kx_find_free(struct kx_find *find)
{
	if (find == NULL)
		return;
	kx_input_free(find->input);
	kx_probe_info_done(&find->info);
	free(find);
}

/* --- One item ------------------------------------------------------------------------------------------------- */

static kx_status refuse(struct look *look, enum kx_reason reason, const char *message)
{
	look->find->kind = KX_FIND_REFUSED;
	look->find->input->reason = reason;
	return kx_str_set(&look->find->input->message, message);
}

static kx_status refuse_error(struct look *look, enum kx_reason reason, const struct kx_error *error)
{
	return refuse(look, reason, error->message[0] != '\0' ? error->message : kx_reason_help(reason));
}

static bool is_indexed(const struct kx_input *input)
{
	return input != NULL && (input->state == KX_INPUT_DONE || input->state == KX_INPUT_PARTIAL);
}

static bool same_recipe(const struct look *look, const struct kx_input *input)
{
	return memcmp(input->recipe_sha256, look->scan->options->recipe_sha256, KX_SHA_LEN) == 0;
}

static kx_status open_file(struct look *look)
{
	struct kx_input *input = look->find->input;
	struct stat st;
	if (input->source[0] != '/')
		return refuse(look, KX_REASON_UNSUPPORTED, "only local files are read");
	look->versioned = true;
	look->fd = open(input->source, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (look->fd < 0 || fstat(look->fd, &st) != 0) {
		enum kx_reason reason = errno == ENOENT || errno == ELOOP ? KX_REASON_NOT_FOUND
					: errno == EACCES || errno == EPERM ? KX_REASON_NO_PERMISSION
									    : KX_REASON_READ_FAILED;
		return refuse(look, reason, strerror(errno));
	}
	if (!S_ISREG(st.st_mode))
		return refuse(look, KX_REASON_UNSUPPORTED, "not a regular file");
	input->content_bytes = (uint64_t)st.st_size;
	input->modified_ns = (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec;
	if (st.st_size == 0)
		return refuse(look, KX_REASON_EMPTY_FILE, "the file is empty");
	return KX_OK;
}

/* Begins to read it, and waits until it is known what is read. */
static kx_status open_stream(struct look *look, const uint8_t *expected, struct kx_fetch_info *ret_info,
			     enum kx_reason *ret_reason, struct kx_error *error)
{
	KX_CLEANUP(kx_fetch_stream_cleanup) struct kx_fetch_stream *stream = NULL;
	kx_status status = kx_fetch_open(look->scan->options->fetch, look->find->input->source, expected, &stream,
					 &look->fd, error);
	if (status == KX_OK)
		return kx_fetch_stream_wait(stream, ret_info, ret_reason, error);
	*ret_reason = status == KX_EINVAL ? KX_REASON_UNSUPPORTED : KX_REASON_INTERNAL;
	return status;
}

static bool same_content(const struct kx_fetch_info *info, const struct kx_input *prior)
{
	return info->versioned && memcmp(info->fingerprint, prior->content_sha256, KX_SHA_LEN) == 0;
}

/* The cheapest way that will do: a listing has told all; what may be unchanged is only asked about; what is new is
 * read at once, since its probing needs the same first bytes. */
static kx_status describe_address(struct look *look, const struct kx_source_item *item, struct kx_fetch_info *ret_info,
				  enum kx_reason *ret_reason, struct kx_error *error)
{
	struct kx_fetch *fetch = look->scan->options->fetch;
	if (item->is_described) {
		*ret_info = item->remote;
		return KX_OK;
	}
	if (fetch == NULL) {
		*ret_reason = KX_REASON_UNSUPPORTED;
		return kx_error_set(error, KX_EUNSUPPORTED, KX_ERROR_POISON, "only local files are read");
	}
	if (is_indexed(look->prior) && same_recipe(look, look->prior)) {
		kx_status status = kx_fetch_stat(fetch, look->find->input->source, ret_info, ret_reason, error);
		/* Servers that say how large it is only by sending it all are asked the other way; and what an answer
		 * without a body says counts as far as it is what was known. */
		if (status == KX_OK ? same_content(ret_info, look->prior) : status != KX_EUNSUPPORTED)
			return status;
	}
	return open_stream(look, NULL, ret_info, ret_reason, error);
}

static kx_status open_address(struct look *look, const struct kx_source_item *item)
{
	struct kx_input *input = look->find->input;
	struct kx_fetch_info info = {0};
	enum kx_reason reason = KX_REASON_INTERNAL;
	struct kx_error error = {0};
	look->remote = true;
	kx_status status = describe_address(look, item, &info, &reason, &error);
	if (status == KX_ECANCELED || status == KX_ENOMEM)
		return status;
	if (status != KX_OK)
		return refuse_error(look, reason, &error);
	look->versioned = info.versioned;
	look->hashed = true;
	input->content_bytes = info.size;
	input->modified_ns = info.modified_ns;
	memcpy(input->content_sha256, info.fingerprint, KX_SHA_LEN);
	if (info.size == 0)
		return refuse(look, KX_REASON_EMPTY_FILE, "the object is empty");
	return KX_OK;
}

static kx_status open_item(struct look *look, const struct kx_source_item *item)
{
	return kx_fetch_is_url(look->find->input->source) ? open_address(look, item) : open_file(look);
}

static kx_status hash_item(struct look *look)
{
	struct kx_error error = {0};
	if (look->hashed)
		return KX_OK;
	if (kx_sha256_fd(look->fd, look->find->input->content_sha256, &error) != KX_OK)
		return refuse_error(look, KX_REASON_READ_FAILED, &error);
	look->hashed = true;
	return KX_OK;
}

/* Takes over what the ledger knows and this run does not change. */
static void inherit(struct look *look)
{
	struct kx_input *input = look->find->input;
	const struct kx_input *prior = look->prior;
	input->state = prior->state;
	input->reason = prior->reason;
	input->generation = prior->generation;
	input->duration_us = prior->duration_us;
	input->covered_us = prior->covered_us;
	input->attempts = prior->attempts;
	memcpy(input->recipe_sha256, prior->recipe_sha256, KX_SHA_LEN);
}

static bool same_place(const struct kx_input *a, const struct kx_input *b)
{
	return strcmp(a->source, b->source) == 0 && strcmp(a->root, b->root) == 0;
}

static bool same_stat(const struct kx_input *a, const struct kx_input *b)
{
	return a->content_bytes == b->content_bytes && a->modified_ns == b->modified_ns && same_place(a, b);
}

/* Is the item what the ledger says, by its time stamp or at least by its content? */
static kx_status compare_with_prior(struct look *look)
{
	struct kx_input *input = look->find->input;
	if (!is_indexed(look->prior) || !same_recipe(look, look->prior) || !look->versioned)
		return KX_OK;
	if (!look->remote && same_stat(input, look->prior)) {
		inherit(look);
		look->find->kind = KX_FIND_UNCHANGED;
		return KX_OK;
	}
	if (input->content_bytes != look->prior->content_bytes)
		return KX_OK;
	kx_status status = hash_item(look);
	if (status == KX_OK && look->hashed &&
	    memcmp(input->content_sha256, look->prior->content_sha256, KX_SHA_LEN) == 0) {
		inherit(look);
		look->find->kind = look->remote && same_place(input, look->prior) ? KX_FIND_UNCHANGED : KX_FIND_TOUCHED;
	}
	return status;
}

static kx_status find_copy(struct look *look)
{
	struct kx_input *input = look->find->input;
	KX_CLEANUP(kx_cleanup_free) char *id = NULL;
	KX_CLEANUP(kx_input_cleanup) struct kx_input *original = NULL;
	struct kx_error error = {0};
	kx_status status = kx_ledger_by_content(look->scan->ledger, input->content_sha256, &id, &error);
	if (status == KX_OK && strcmp(id, input->video_id) != 0)
		status = kx_ledger_get(look->scan->ledger, id, &original, &error);
	if (status == KX_ENOTFOUND)
		return KX_OK;
	if (status != KX_OK || !is_indexed(original) || !same_recipe(look, original))
		return status;
	look->find->kind = KX_FIND_COPY;
	return kx_str_set(&input->copy_of, id);
}

/* A stream is read once: each attempt has its own, and what a server fails at has been tried often enough by then. */
static kx_status probe_address(struct look *look, enum kx_reason *ret_reason, struct kx_error *error)
{
	const struct kx_coordinator_options *options = look->scan->options;
	struct kx_fetch_info info;
	kx_status status = KX_OK;
	if (look->fd < 0)
		status = open_stream(look, look->find->input->content_sha256, &info, ret_reason, error);
	if (status == KX_OK)
		status = options->probe.probe(options->probe.ctx, look->fd, look->find->input->video_id,
					      &look->find->info, ret_reason, error);
	kx_cleanup_close(&look->fd);
	look->fd = -1;
	if (status != KX_OK && status != KX_ECANCELED &&
	    (*ret_reason == KX_REASON_READ_FAILED || *ret_reason == KX_REASON_CHANGED))
		error->class = KX_ERROR_POISON;
	return status;
}

/* A prober that was killed is no fault of the file's, so that probing has as many attempts as a job. */
static kx_status probe_item(struct look *look)
{
	const struct kx_coordinator_options *options = look->scan->options;
	enum kx_reason reason = KX_REASON_INTERNAL;
	struct kx_error error = {0};
	kx_status status = KX_EAGAIN;
	for (uint32_t i = 0; i < options->attempts_max && status != KX_OK && status != KX_ECANCELED &&
			     error.class == KX_ERROR_RETRY; i++) {
		error = (struct kx_error){0};
		status = look->remote ? probe_address(look, &reason, &error)
				      : options->probe.probe(options->probe.ctx, look->fd, look->find->input->video_id,
							     &look->find->info, &reason, &error);
	}
	if (status == KX_ENOMEM || (look->remote && status == KX_ECANCELED))
		return status;
	if (status != KX_OK)
		return refuse_error(look, reason, &error);
	look->find->input->duration_us = look->find->info.duration_us;
	return KX_OK;
}

/* *ret_new: the run had not met the id yet. */
static kx_status meet(struct kx_scan *scan, const char *id, bool *ret_new)
{
	uint64_t line;
	kx_status status = kx_idset_add(&scan->seen, id, 1, &line);
	*ret_new = status == KX_OK;
	return status == KX_EEXIST ? KX_OK : status;
}

/* An id that another file holds can't be this one's too: the input goes down under an id that says which file it is. */
static kx_status refuse_duplicate(struct look *look, const char *holder)
{
	struct kx_input *input = look->find->input;
	char *id = kx_strf("%s@%s", input->video_id, input->source);
	char *message = kx_strf("the id %s belongs to %s. Give ids in a manifest, or index a folder above both",
				input->video_id, holder);
	kx_status status = id != NULL && message != NULL ? refuse(look, KX_REASON_DUPLICATE_ID, message) : KX_ENOMEM;
	if (status == KX_OK && strlen(id) <= KX_ID_MAX && kx_utf8_valid(id, strlen(id)))
		status = kx_str_set(&input->video_id, id);
	/* Met under this id too, or the end of the walk would take it for lost. */
	bool is_new;
	if (status == KX_OK)
		status = meet(look->scan, input->video_id, &is_new);
	free(message);
	free(id);
	return status;
}

/* What can't be asked about now may well be there. */
static bool is_there(const struct look *look, const char *source)
{
	struct kx_fetch *fetch = look->scan->options->fetch;
	struct kx_fetch_info info;
	enum kx_reason reason = KX_REASON_INTERNAL;
	if (!kx_fetch_is_url(source))
		return access(source, F_OK) == 0;
	return fetch == NULL || kx_fetch_stat(fetch, source, &info, &reason, NULL) == KX_OK ||
	       reason != KX_REASON_NOT_FOUND;
}

static bool held_by_other(const struct look *look)
{
	return is_indexed(look->prior) && strcmp(look->prior->source, look->find->input->source) != 0 &&
	       strcmp(look->prior->root, look->find->input->root) != 0 && is_there(look, look->prior->source);
}

static kx_status examine_content(struct look *look)
{
	kx_status status = hash_item(look);
	if (status == KX_OK && look->find->kind == KX_FIND_NEW && look->versioned)
		status = find_copy(look);
	if (status == KX_OK && (look->find->kind == KX_FIND_NEW || look->find->kind == KX_FIND_COPY))
		status = probe_item(look);
	return status;
}

static kx_status examine(struct look *look, const struct kx_source_item *item)
{
	struct kx_input *input = look->find->input;
	bool is_new;
	struct kx_error error = {0};
	kx_status status = meet(look->scan, input->video_id, &is_new);
	if (status != KX_OK)
		return status;
	if (!is_new)
		return refuse_duplicate(look, "another input of this run");
	status = kx_ledger_get(look->scan->ledger, input->video_id, &look->prior, &error);
	if (status != KX_OK && status != KX_ENOTFOUND)
		return status;
	if (look->prior != NULL)
		input->generation = look->prior->generation;
	if (item->reason != KX_REASON_NONE)
		return refuse(look, item->reason, item->message);
	status = open_item(look, item);
	if (status != KX_OK || look->find->kind != KX_FIND_NEW)
		return status;
	status = compare_with_prior(look);
	if (status != KX_OK || look->find->kind != KX_FIND_NEW)
		return status;
	if (held_by_other(look))
		return refuse_duplicate(look, look->prior->source);
	return examine_content(look);
}

static kx_status copy_labels(const struct kx_source_item *item, struct kx_input *input)
{
	if (item->label_count == 0)
		return KX_OK;
	input->labels = calloc(item->label_count, sizeof(char *));
	if (input->labels == NULL)
		return KX_ENOMEM;
	for (; input->label_count < item->label_count; input->label_count++)
		if ((input->labels[input->label_count] = kx_strdup(item->labels[input->label_count])) == NULL)
			return KX_ENOMEM;
	return KX_OK;
}

static struct kx_find *new_find(const struct kx_source_item *item, const char *root)
{
	struct kx_find *find = calloc(1, sizeof(*find));
	struct kx_input *input = calloc(1, sizeof(*input));
	if (find == NULL || input == NULL) {
		free(find);
		free(input);
		return NULL;
	}
	find->kind = KX_FIND_NEW;
	find->input = input;
	input->state = KX_INPUT_PLANNED;
	input->reason = KX_REASON_NONE;
	if (kx_str_set(&input->video_id, item->video_id) != KX_OK || kx_str_set(&input->root, root) != KX_OK ||
	    kx_str_set(&input->source, item->path) != KX_OK || kx_str_set(&input->title, item->title) != KX_OK ||
	    kx_str_set(&input->message, "") != KX_OK || kx_str_set(&input->copy_of, "") != KX_OK ||
	    copy_labels(item, input) != KX_OK || kx_extras_copy(&item->extras, &input->extras) != KX_OK) {
		kx_find_free(find);
		return NULL;
	}
	return find;
}

/* --- The thread ----------------------------------------------------------------------------------------------- */

/* Waits for room. KX_ECANCELED when the scan is to end; takes the find over in any case. */
static kx_status push(struct kx_scan *scan, struct kx_find *find)
{
	pthread_mutex_lock(&scan->mutex);
	while (scan->count == QUEUE_MAX && !scan->stopping)
		pthread_cond_wait(&scan->room, &scan->mutex);
	bool stopping = scan->stopping;
	if (!stopping)
		scan->queue[(scan->head + scan->count++) % QUEUE_MAX] = find;
	pthread_mutex_unlock(&scan->mutex);
	if (stopping) {
		kx_find_free(find);
		return KX_ECANCELED;
	}
	scan->wake(scan->wake_ctx);
	return KX_OK;
}

static kx_status scan_item(struct kx_scan *scan, const struct kx_source_item *item, const char *root,
			   struct kx_error *error)
{
	if (scan->seen.count == KX_IDSET_MAX)
		return kx_error_set(error, KX_ETOOBIG, KX_ERROR_FATAL,
				    "more than %zu inputs in one run: index them in parts", KX_IDSET_MAX);
	struct kx_find *find = new_find(item, root);
	if (find == NULL)
		return kx_error_nomem(error);
	struct look look = {.scan = scan, .find = find, .fd = -1};
	kx_status status = examine(&look, item);
	kx_input_free(look.prior);
	if (look.fd >= 0)
		close(look.fd);
	if (status != KX_OK) {
		kx_find_free(find);
		return kx_error_set(error, status, KX_ERROR_FATAL, "looking at %s: %s", item->path,
				    kx_status_name(status));
	}
	atomic_fetch_add(&scan->found, 1);
	return push(scan, find);
}

static bool is_over(struct kx_scan *scan)
{
	pthread_mutex_lock(&scan->mutex);
	bool over = scan->stopping;
	pthread_mutex_unlock(&scan->mutex);
	return over || kx_stop_asked(scan->options->stop);
}

static kx_status scan_source(struct kx_scan *scan, struct kx_source *source, struct kx_error *error)
{
	while (!is_over(scan)) {
		KX_CLEANUP(kx_source_item_cleanup) struct kx_source_item *item = NULL;
		kx_status status = kx_source_next(source, &item, error);
		if (status == KX_ENOTFOUND)
			return KX_OK;
		if (status == KX_OK)
			status = scan_item(scan, item, kx_source_root(source), error);
		if (status != KX_OK)
			return status;
	}
	return KX_ECANCELED;
}

static kx_status scan_replay(struct kx_scan *scan, const char *id, struct kx_error *error)
{
	KX_CLEANUP(kx_input_cleanup) struct kx_input *input = NULL;
	kx_status status = kx_ledger_get(scan->ledger, id, &input, error);
	if (status == KX_ENOTFOUND)
		return kx_error_set(error, KX_ENOTFOUND, KX_ERROR_FATAL, "the ledger has no input %s", id);
	if (status != KX_OK)
		return status;
	struct kx_source_item item = {
		.video_id = input->video_id,
		.path = input->source,
		.title = input->title,
		.label_count = input->label_count,
		.labels = input->labels,
		.extras = input->extras,
		.reason = KX_REASON_NONE,
	};
	return scan_item(scan, &item, input->root, error);
}

static kx_status scan_all(struct kx_scan *scan, struct kx_error *error)
{
	kx_status status = KX_OK;
	for (size_t i = 0; i < scan->options->replay_count && status == KX_OK; i++)
		status = scan_replay(scan, scan->options->replay_ids[i], error);
	for (size_t i = 0; i < scan->source_count && status == KX_OK; i++)
		status = scan_source(scan, scan->sources[i], error);
	return status;
}

static void *scan_main(void *arg)
{
	struct kx_scan *scan = arg;
	struct kx_error error = {0};
	kx_status status = scan_all(scan, &error);
	pthread_mutex_lock(&scan->mutex);
	scan->ended = true;
	if (status != KX_OK) {
		error.status = status;
		scan->failure = error;
	}
	pthread_mutex_unlock(&scan->mutex);
	scan->wake(scan->wake_ctx);
	return NULL;
}

static kx_status open_source(const struct kx_coordinator_options *options, const char *arg, struct kx_source **ret,
			     struct kx_error *error)
{
	if (!kx_fetch_is_url(arg))
		return kx_source_open_typed(arg, options->schema, ret, error);
	if (options->fetch == NULL)
		return kx_error_set(error, KX_EUNSUPPORTED, KX_ERROR_POISON, "%s: only local files are read", arg);
	return kx_source_open_address(options->fetch, arg, ret, error);
}

static kx_status open_sources(struct kx_scan *scan, struct kx_error *error)
{
	const struct kx_coordinator_options *options = scan->options;
	scan->sources = calloc(options->source_count + 1, sizeof(*scan->sources));
	if (scan->sources == NULL)
		return kx_error_nomem(error);
	for (size_t i = 0; i < options->source_count; i++) {
		kx_status status = open_source(options, options->sources[i], &scan->sources[i], error);
		if (status != KX_OK)
			return status;
		scan->source_count++;
	}
	return KX_OK;
}

kx_status kx_scan_start(const struct kx_coordinator_options *options, struct kx_ledger *ledger,
			void (*wake)(void *ctx), void *wake_ctx, struct kx_scan **ret, struct kx_error *error)
{
	struct kx_scan *scan = calloc(1, sizeof(*scan));
	if (scan == NULL)
		return kx_error_nomem(error);
	scan->options = options;
	scan->ledger = ledger;
	scan->wake = wake;
	scan->wake_ctx = wake_ctx;
	pthread_mutex_init(&scan->mutex, NULL);
	pthread_cond_init(&scan->room, NULL);
	kx_status status = open_sources(scan, error);
	if (status == KX_OK)
		status = kx_thread_start(&scan->thread, "kx-scan", scan_main, scan, error);
	scan->started = status == KX_OK;
	if (status == KX_OK)
		*ret = scan;
	else
		kx_scan_free(scan);
	return status;
}

void kx_scan_free(struct kx_scan *scan)
{
	if (scan == NULL)
		return;
	if (scan->started) {
		pthread_mutex_lock(&scan->mutex);
		scan->stopping = true;
		pthread_cond_signal(&scan->room);
		pthread_mutex_unlock(&scan->mutex);
		pthread_join(scan->thread, NULL);
	}
	for (; scan->count > 0; scan->count--, scan->head++)
		kx_find_free(scan->queue[scan->head % QUEUE_MAX]);
	for (size_t i = 0; i < scan->source_count; i++)
		kx_source_free(scan->sources[i]);
	free(scan->sources);
	kx_idset_done(&scan->seen);
	pthread_cond_destroy(&scan->room);
	pthread_mutex_destroy(&scan->mutex);
	free(scan);
}

kx_status kx_scan_take(struct kx_scan *scan, struct kx_find **ret, struct kx_error *error)
{
	kx_status status = KX_EAGAIN;
	pthread_mutex_lock(&scan->mutex);
	if (scan->count > 0) {
		*ret = scan->queue[scan->head];
		scan->head = (scan->head + 1) % QUEUE_MAX;
		scan->count--;
		pthread_cond_signal(&scan->room);
		status = KX_OK;
	} else if (scan->ended && scan->failure.status != KX_OK) {
		status = scan->failure.status;
		if (error != NULL)
			*error = scan->failure;
	} else if (scan->ended) {
		status = KX_ENOTFOUND;
	}
	pthread_mutex_unlock(&scan->mutex);
	return status;
}

uint64_t kx_scan_found(const struct kx_scan *scan)
{
	return atomic_load(&scan->found);
}

bool kx_scan_lost(const struct kx_scan *scan, const struct kx_input *input)
{
	uint64_t line;
	if (input->state == KX_INPUT_DELETED || kx_idset_find(&scan->seen, input->video_id, &line) != KX_ENOTFOUND)
		return false;
	for (size_t i = 0; i < scan->source_count; i++)
		if (kx_source_is_complete(scan->sources[i]) &&
		    strcmp(kx_source_root(scan->sources[i]), input->root) == 0)
			return true;
	return false;
}
