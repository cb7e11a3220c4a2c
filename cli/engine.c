#include "cli/engine.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "common/base/fs.h"
#include "common/base/str.h"
#include "worker/media/media.h"

/* Jobs that wait inside the pipeline beyond those being decoded: enough that no decoder waits for the bus. */
#define QUEUE_PER_DECODER 2

char *kx_engine_program(void)
{
	char path[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - 1);
	return len > 0 ? kx_strndup(path, (size_t)len) : NULL;
}

/* bundles/ in the working folder, else beside a build tree (<root>/build/<preset>/cli/kinodex), else installed. */
static char *find_bundles(const struct kx_config *config)
{
	const char *named = kx_config_text(config, "bundles");
	if (named != NULL)
		return kx_strdup(named);
	if (kx_fs_exists("bundles"))
		return kx_strdup("bundles");
	char *path = kx_engine_program();
	for (int up = 0; path != NULL && up < 4; up++) {
		char *slash = strrchr(path, '/');
		if (slash == NULL)
			break;
		*slash = '\0';
	}
	char *beside = path != NULL ? kx_fs_join(path, "bundles") : NULL;
	free(path);
	if (beside != NULL && kx_fs_exists(beside))
		return beside;
	free(beside);
	return kx_strdup("/usr/share/kinodex/bundles");
}

char *kx_engine_cache(void)
{
	const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");

	if (cache != NULL && cache[0] == '/') /* the standard has others ignored */
		return kx_fs_join(cache, "kinodex");
	return home != NULL && home[0] == '/' ? kx_fs_join(home, ".cache/kinodex") : NULL;
}

kx_status kx_engine_bundle(const struct kx_config *config, const char *name, struct kx_bundle **ret,
			   struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_free) char *folder = find_bundles(config);
	KX_CLEANUP(kx_cleanup_free) char *path = folder != NULL ? kx_fs_join(folder, name) : NULL;
	if (path == NULL)
		return kx_error_nomem(error);
	return kx_bundle_open(path, ret, error);
}

enum kx_precision kx_engine_precision(const struct kx_config *config)
{
	const char *text = kx_config_text(config, "precision");
	if (strcmp(text, "f32") == 0)
		return KX_PRECISION_F32;
	return strcmp(text, "bf16") == 0 ? KX_PRECISION_BF16 : KX_PRECISION_AUTO;
}

kx_status kx_engine_open(const struct kx_config *config, struct kx_engine **ret, struct kx_error *error)
{
	KX_CLEANUP(kx_engine_cleanup) struct kx_engine *engine = calloc(1, sizeof(*engine));
	if (engine == NULL || (engine->program = kx_engine_program()) == NULL)
		return kx_error_nomem(error);
	kx_status status = kx_engine_bundle(config, kx_config_text(config, "visual"), &engine->visual, error);
	if (status == KX_OK)
		status = kx_engine_bundle(config, kx_config_text(config, "audio"), &engine->audio, error);
	struct kx_fetch_options options = {
		.timeout_ms = (uint64_t)kx_config_int(config, "fetch-timeout") * 1000u, .stop = &kx_interrupted};
	if (status == KX_OK)
		status = kx_fetch_new(&options, &engine->fetch, error);
	if (status != KX_OK)
		return status;
	*ret = KX_STEAL(engine);
	return KX_OK;
}

static size_t count_or_cores(int64_t wanted)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	if (wanted > 0)
		return (size_t)wanted;
	return cores > 0 ? (size_t)cores : 1;
}

kx_status kx_engine_start(struct kx_engine *engine, const struct kx_config *config, const char *run_dir,
			  struct kx_error *error)
{
	size_t decoders = count_or_cores(kx_config_int(config, "workers"));
	KX_CLEANUP(kx_cleanup_free) char *cache = kx_engine_cache();
	struct kx_pipeline_options options = {
		.program = engine->program,
		.run_dir = run_dir,
		.visual = engine->visual,
		.audio = engine->audio,
		.precision = kx_engine_precision(config),
		.decoders = decoders,
		.streams = count_or_cores(kx_config_int(config, "streams")),
		.batch = (size_t)kx_config_int(config, "batch"),
		.model_cache = cache,
		.lazy = engine->lazy,
		.queue_max = QUEUE_PER_DECODER * decoders,
		.fetch = engine->fetch,
		.beside = engine->beside,
	};
	return kx_pipeline_new(&options, &engine->pipeline, error);
}

kx_status kx_engine_recipe(const struct kx_engine *engine, const struct kx_config *config,
			   const struct kx_sampling *sampling, uint8_t ret[KX_SHA_LEN], struct kx_error *error)
{
	struct kx_runtime *runtime = NULL;
	char visual[KX_SPACE_MAX], audio[KX_SPACE_MAX];
	kx_status status = kx_runtime_new(&runtime, error);
	if (status != KX_OK)
		return status;
	const char *precision = kx_precision_name(kx_runtime_precision(runtime, kx_engine_precision(config)));
	kx_runtime_free(runtime);
	if (kx_bundle_space(engine->visual, KX_MEDIA_PREPROCESS, precision, visual) != KX_OK ||
	    kx_bundle_space(engine->audio, KX_MEDIA_PREPROCESS, precision, audio) != KX_OK)
		return kx_error_nomem(error);
	kx_recipe(visual, audio, sampling, ret);
	return KX_OK;
}

void kx_engine_free(struct kx_engine *engine)
{
	if (engine == NULL)
		return;
	kx_pipeline_free(engine->pipeline);
	kx_fetch_free(engine->fetch);
	kx_bundle_free(engine->audio);
	kx_bundle_free(engine->visual);
	free(engine->program);
	free(engine);
}

void kx_engine_cleanup(struct kx_engine **engine)
{
	kx_engine_free(*engine);
}
