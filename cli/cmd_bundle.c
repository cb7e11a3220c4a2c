#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/engine.h"
#include "cli/json.h"
#include "common/base/str.h"

static kx_status check(const struct kx_config *config, const struct kx_bundle *bundle,
		       enum kx_precision *ret_precision, double *ret_cosine, struct kx_error *error)
{
	struct kx_runtime *runtime = NULL;
	struct kx_model *model = NULL;
	kx_status status = kx_runtime_new(&runtime, error);
	if (status == KX_OK) {
		*ret_precision = kx_runtime_precision(runtime, kx_engine_precision(config));
		struct kx_model_options options = {.precision = *ret_precision, .streams = 1};
		status = kx_model_new(runtime, bundle, &options, &model, error);
	}
	if (status == KX_OK)
		status = kx_model_check(model, ret_cosine, error);
	kx_model_free(model);
	kx_runtime_free(runtime);
	return status;
}

static kx_status print_check(const struct kx_config *config, const struct kx_bundle *bundle,
			     enum kx_precision precision, double cosine, struct kx_error *error)
{
	char sha[2 * KX_SHA_LEN + 1];
	kx_hex_encode(bundle->sha256, KX_SHA_LEN, sha);
	if (kx_config_flag(config, "json"))
		return kx_json_print(json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:s, s:f}", "name", bundle->name,
					       "version", bundle->version, "licence", bundle->licence, "sha256", sha,
					       "feature_dim", (json_int_t)bundle->feature_dim, "classes",
					       (json_int_t)bundle->class_count, "precision",
					       kx_precision_name(precision), "golden_cosine", cosine),
				     error);
	printf("%s %s (%s): good\n  sha256    %s\n  features  %zu, classes %zu\n"
	       "  golden    %zu pairs, lowest cosine %.5f in %s\n",
	       bundle->name, bundle->version, bundle->licence, sha, bundle->feature_dim, bundle->class_count,
	       bundle->golden_count, cosine, kx_precision_name(precision));
	return KX_OK;
}

int kx_cmd_bundle(const struct kx_config *config)
{
	if (kx_config_argc(config) != 2 || strcmp(kx_config_arg(config, 0), "check") != 0)
		return kx_usage("kinodex bundle check DIR");
	KX_CLEANUP(kx_bundle_cleanup) struct kx_bundle *bundle = NULL;
	enum kx_precision precision = KX_PRECISION_AUTO;
	double cosine = 0;
	struct kx_error error = {0};
	kx_status status = kx_bundle_open(kx_config_arg(config, 1), &bundle, &error);
	if (status == KX_OK)
		status = check(config, bundle, &precision, &cosine, &error);
	if (status == KX_OK)
		status = print_check(config, bundle, precision, cosine, &error);
	return status == KX_OK ? KX_EXIT_DONE : kx_fail(&error);
}
