/* Reading a whole store without a shard: verify and export. Both see it as it was when they opened it. */
#include <string.h>

#include "shard/run/shard.h"
#include "shard/store/store.h"

static kx_status open_to_read(const char *data_dir, struct kx_store **ret, struct kx_error *error)
{
	struct kx_store_options options = {.data_dir = data_dir, .read_only = true};

	return kx_store_open(&options, ret, error);
}

kx_status kx_shard_verify(const char *data_dir, struct kx_shard_verify *ret, struct kx_error *error)
{
	KX_CLEANUP(kx_store_cleanup) struct kx_store *store = NULL;
	struct kx_store_audit audit;
	kx_status status = open_to_read(data_dir, &store, error);

	if (!status)
		status = kx_store_audit(store, &audit, error);
	if (status)
		return status;
	*ret = (struct kx_shard_verify){
		.videos = audit.videos, .moments = audit.moments, .rows = audit.rows, .pending = audit.pending};
	memcpy(ret->digest, audit.digest, sizeof(ret->digest));
	return KX_OK;
}

struct walk {
	struct kx_store *store;
	const struct kx_shard_visitor *visitor;
	const struct kx_video_record *video;
};

static kx_status walk_moment(void *ctx, const struct kx_moment *moment, const void *bytes, size_t len,
			     struct kx_error *error)
{
	const struct walk *walk = ctx;

	(void)bytes, (void)len;
	return walk->visitor->moment(walk->visitor->ctx, walk->video, moment, error);
}

static kx_status walk_video(void *ctx, const struct kx_video_record *video, struct kx_error *error)
{
	struct walk *walk = ctx;
	kx_status status = walk->visitor->video(walk->visitor->ctx, video, error);

	if (status || !walk->visitor->moment)
		return status;
	walk->video = video;
	return kx_store_each_moment(walk->store, video->result.video_id, video->generation, walk_moment, walk, error);
}

kx_status kx_shard_each(const char *data_dir, const struct kx_shard_visitor *visitor, struct kx_error *error)
{
	KX_CLEANUP(kx_store_cleanup) struct kx_store *store = NULL;
	struct walk walk = {.visitor = visitor};
	kx_status status = open_to_read(data_dir, &store, error);

	if (status)
		return status;
	walk.store = store;
	return kx_store_each_video(store, walk_video, &walk, error);
}
