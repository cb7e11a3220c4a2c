/* Bundles and a pipeline, as options say. Layer: cli. */
#ifndef KX_CLI_ENGINE_H
#define KX_CLI_ENGINE_H

#include "common/config/config.h"
#include "worker/pipeline/pipeline.h"

struct kx_engine {
	char *program;             /* this executable */
	struct kx_bundle *visual;
	struct kx_bundle *audio;
	struct kx_fetch *fetch;    /* for sources that are addresses */
	struct kx_prober *beside;  /* NULL, or set before the start: the pipeline's, of kx_pipeline_options */
	bool lazy;                 /* set before the start: the pipeline's, of kx_pipeline_options */
	struct kx_pipeline *pipeline; /* NULL until started */
};

/* Path of this executable, which is also the decoder host. The caller frees; NULL when it can't be told. */
char *kx_engine_program(void);
/* Opens the bundles, and what addresses are read with, only: enough for labels. */
kx_status kx_engine_open(const struct kx_config *config, struct kx_engine **ret, struct kx_error *error) KX_MUST_CHECK;
/* Starts decoders and networks; takes a second or two. */
kx_status kx_engine_start(struct kx_engine *engine, const struct kx_config *config, const char *run_dir,
			  struct kx_error *error) KX_MUST_CHECK;
/* The recipe of a pipeline that was started with these bundles and options, without starting one. */
kx_status kx_engine_recipe(const struct kx_engine *engine, const struct kx_config *config,
			   const struct kx_sampling *sampling, uint8_t ret[KX_SHA_LEN],
			   struct kx_error *error) KX_MUST_CHECK;
void kx_engine_free(struct kx_engine *engine);
void kx_engine_cleanup(struct kx_engine **engine);

/* Where compiled models are kept: $XDG_CACHE_HOME/kinodex or ~/.cache/kinodex. The caller frees; NULL without either. */
char *kx_engine_cache(void);

/* Opens bundle `name` where --bundles or the usual places have it. */
kx_status kx_engine_bundle(const struct kx_config *config, const char *name, struct kx_bundle **ret,
			   struct kx_error *error) KX_MUST_CHECK;
enum kx_precision kx_engine_precision(const struct kx_config *config);

#endif
