#include <stdlib.h>

#include "cli/cli.h"
#include "cli/indexer.h"
#include "cli/sampling.h"

int kx_cmd_index(const struct kx_config *config)
{
	size_t count = kx_config_argc(config);
	if (count == 0)
		return kx_usage("index what? Name folders, files, manifests or addresses (https, s3): kinodex index SOURCE... --data DIR");
	struct kx_error error = {0};
	if (kx_cli_decode(config, &(struct kx_sampling){0}, &error) != KX_OK)
		return kx_usage("%s", error.message);
	const char **sources = calloc(count, sizeof(*sources));
	if (sources == NULL)
		return KX_EXIT_FAILED;
	for (size_t i = 0; i < count; i++)
		sources[i] = kx_config_arg(config, i);
	struct kx_index_request request = {.sources = sources, .source_count = count,
					   .schema = kx_config_text(config, "schema")};
	struct kx_index_report report = {0};
	kx_status status = kx_index_run(config, &request, &report, &error);
	free(sources);
	if (status != KX_OK && status != KX_ECANCELED)
		return kx_fail(&error);
	return kx_index_print(config, &report, status == KX_ECANCELED);
}
