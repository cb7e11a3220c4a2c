/* What `kinodex duplicates` found, kept beside the store for filters and groups. Layer: shard/query.
 *
 * A text: a line a video that is a near-duplicate, its id, a tab, and the id of the one that stands for all like it. It is
 * replaced as a whole, and read again by whoever is asked about duplicates after that. */
#ifndef KX_SHARD_QUERY_DUPLICATES_FILE_H
#define KX_SHARD_QUERY_DUPLICATES_FILE_H

#include "shard/query/mirror.h"

struct kx_duplicates_file;

/* data_dir is copied. KX_ENOMEM. */
kx_status kx_duplicates_file_new(const char *data_dir, struct kx_duplicates_file **ret) KX_MUST_CHECK;
void kx_duplicates_file_free(struct kx_duplicates_file *file); /* NULL is nothing */

/* Puts what the file says into the mirror when it is not what was read last. No file is no duplicates. Thread-safe; blocks
 * on the disk. KX_EIO, KX_ECORRUPT, KX_ENOMEM. */
kx_status kx_duplicates_file_refresh(struct kx_duplicates_file *file, struct kx_mirror *mirror,
				     struct kx_error *error) KX_MUST_CHECK;

/* Replaces the file. Ids have no tab and no line's end in them: KX_EINVAL names one that has. */
kx_status kx_duplicates_file_write(const char *data_dir, const struct kx_duplicate_pair *pairs, size_t count,
				   struct kx_error *error) KX_MUST_CHECK;

#endif
