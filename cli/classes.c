#include "cli/classes.h"

#include "common/base/log.h"

static void add(struct kx_cli_classes *classes, enum kx_modality modality, const struct kx_bundle *bundle)
{
	classes->names[classes->count++] = (struct kx_class_names){
		.modality = modality,
		.count = (uint32_t)bundle->class_count,
		.labels = (const char *const *)bundle->labels,
	};
}

void kx_cli_classes_of(const struct kx_engine *engine, struct kx_cli_classes *ret)
{
	*ret = (struct kx_cli_classes){0};
	add(ret, KX_VISUAL, engine->visual);
	add(ret, KX_AUDIO, engine->audio);
}

void kx_cli_classes_open(const struct kx_config *config, struct kx_cli_classes *ret)
{
	static const char *const keys[] = {"visual", "audio"};
	*ret = (struct kx_cli_classes){0};
	for (int m = 0; m < 2; m++) {
		struct kx_error error = {0};
		if (kx_engine_bundle(config, kx_config_text(config, keys[m]), &ret->opened[m], &error) == KX_OK)
			add(ret, (enum kx_modality)(m + KX_VISUAL), ret->opened[m]);
		else
			kx_log(KX_LOG_WARN, "filters can't name %s classes: %s", keys[m], error.message);
	}
}

void kx_cli_classes_done(struct kx_cli_classes *classes)
{
	kx_bundle_free(classes->opened[0]);
	kx_bundle_free(classes->opened[1]);
	*classes = (struct kx_cli_classes){0};
}
