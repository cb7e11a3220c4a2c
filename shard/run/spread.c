#include "shard/run/spread.h"

#include "common/base/fs.h"
#include "common/bus/bus.h"

struct opened {
	struct kx_store *from[KX_SPREAD_MAX], *to[KX_SPREAD_MAX];
};

static kx_status open_all(const struct kx_shard_spread *options, struct opened *opened, struct kx_error *error)
{
	kx_status status = KX_OK;

	for (size_t i = 0; !status && i < options->from_count; i++) {
		const struct kx_store_options store = {.data_dir = options->from[i], .read_only = true};

		status = kx_store_open(&store, &opened->from[i], error);
	}
	for (uint32_t i = 0; !status && i < options->parts; i++) {
		const struct kx_store_options store = {.data_dir = options->to[i]};

		status = kx_fs_mkdirs(options->to[i], error);
		if (!status)
			status = kx_store_open(&store, &opened->to[i], error);
	}
	return status;
}

static void close_all(struct opened *opened)
{
	for (size_t i = 0; i < KX_SPREAD_MAX; i++) {
		kx_store_close(opened->from[i]);
		kx_store_close(opened->to[i]);
	}
}

/* One store may be a whole catalogue, which does not know how many partitions there are. */
static kx_status spread_all(const struct kx_shard_spread *options, const struct opened *opened,
			    struct kx_spread_counts *each, struct kx_spread_counts *ret, struct kx_error *error)
{
	struct kx_store_part part = {0};
	struct kx_spread spread = {.from = opened->from,
				   .names = options->from,
				   .from_count = options->from_count,
				   .parts = options->parts,
				   .partition_of = kx_bus_key_partition,
				   .goes_on = options->goes_on,
				   .ctx = options->ctx};
	kx_status status = kx_store_part(opened->from[0], &part, error);

	if (status)
		return status;
	spread.partitions = part.parts == 1 ? options->partitions : 0;
	return kx_spread_stores(&spread, opened->to, each, ret, error);
}

kx_status kx_shard_spread(const struct kx_shard_spread *options, struct kx_spread_counts *each,
			  struct kx_spread_counts *ret, struct kx_error *error)
{
	struct opened opened = {0};
	kx_status status;

	if (!options->from_count || options->from_count > KX_SPREAD_MAX || !options->parts || options->parts > KX_SPREAD_MAX)
		return kx_error_set(error, KX_EINVAL, KX_ERROR_FATAL, "from 1 to %u stores can be spread, and made", KX_SPREAD_MAX);
	status = open_all(options, &opened, error);
	if (!status)
		status = spread_all(options, &opened, each, ret, error);
	close_all(&opened);
	return status;
}
