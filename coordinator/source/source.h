/* What a catalogue can be: a folder, a file, a manifest, an address. Layer: coordinator/source.
 *
 * A source is walked once, item by item, in a fixed order (names sorted within a folder), in constant memory. Every
 * regular file of a folder is an item; so is every entry that can't be read (a dangling link, a folder without
 * permission), with the reason, so that nothing is passed over in silence. Hidden files and folders (a leading dot)
 * are no items. Links to files are followed; links to folders are followed unless they lead back into a folder that
 * is being walked.
 */
#ifndef KX_COORDINATOR_SOURCE_SOURCE_H
#define KX_COORDINATOR_SOURCE_SOURCE_H

#include <stdbool.h>

#include "common/base/error.h"
#include "common/fetch/fetch.h"
#include "common/record/types.h"
#include "coordinator/source/schema.h"

struct kx_source_item {
	char *video_id;  /* the manifest's, else the path relative to the root ('/' between names); bytes that are not
			    UTF-8, control characters and '%' are written %XX. At most KX_ID_MAX bytes */
	char *path;      /* absolute; or an address (kx_fetch_is_url()); or, with the reason, an address of another kind */
	char *title;     /* "" */
	uint32_t label_count;
	char **labels;
	uint64_t duration_us;   /* as a manifest says; 0 when it does not */
	struct kx_extras extras; /* likewise */
	enum kx_reason reason;  /* KX_REASON_NONE, or why it can't be read */
	char *message;          /* UTF-8; "" */
	bool is_described;      /* a listing has told what the address leads to: */
	struct kx_fetch_info remote;
};
void kx_source_item_free(struct kx_source_item *item);
void kx_source_item_cleanup(struct kx_source_item **item);

struct kx_source;

/* arg: an existing folder, a manifest (.jsonl, .csv), else a file. A manifest is read and checked to its end first:
 * KX_EINVAL names file, line and field ("films.jsonl:17: no id"), and the cure; KX_ETOOBIG a line over 1 MiB or more
 * than 2^23 inputs. Its relative paths are relative to its folder. "url" may be file:///..., http, https or s3; any
 * other scheme becomes an item with KX_REASON_UNSUPPORTED; where path and url are given, path counts. Two lines with one id are an error.
 * KX_ENOTFOUND, KX_EPERM name arg. Blocks on disk; a source belongs to one thread. Fault points: source.read,
 * source.stat. */
kx_status kx_source_open(const char *arg, struct kx_source **ret, struct kx_error *error) KX_MUST_CHECK;
/* The same with the types of attributes declared (NULL: none): a manifest's value of another type is KX_EINVAL. Those
 * that are not declared have the type that the manifest's rows show: in JSON all the same, in CSV numbers where all are,
 * true and false where all are, else text. */
kx_status kx_source_open_typed(const char *arg, const struct kx_schema *schema, struct kx_source **ret,
			       struct kx_error *error) KX_MUST_CHECK;
/* url: http, https or s3. One object, whose id is its file name; or all objects under s3://bucket/prefix/, whose ids are
 * their keys after the prefix, hidden ones passed over as in a folder. The first page of a listing is read at once, so
 * that a bucket that is not there or not ours is told before anything begins. Blocks on the network. */
kx_status kx_source_open_address(struct kx_fetch *fetch, const char *url, struct kx_source **ret, struct kx_error *error)
	KX_MUST_CHECK;
void kx_source_free(struct kx_source *source);
void kx_source_cleanup(struct kx_source **source);

/* Absolute path of the folder or manifest; of the file itself for a single file; the address. */
const char *kx_source_root(const struct kx_source *source);
/* What was indexed from this root before and is not an item any more was deleted. Not so for a single file, nor when a
 * folder could not be read, which is known at the end of the walk: ask then. */
int kx_source_is_complete(const struct kx_source *source);

/* The next item, which the caller frees; KX_ENOTFOUND without a message after the last. Other errors end the walk: a
 * root that can't be read on, a manifest that changed since it was opened (KX_EIO, to be run again). */
kx_status kx_source_next(struct kx_source *source, struct kx_source_item **ret, struct kx_error *error) KX_MUST_CHECK;

#endif
