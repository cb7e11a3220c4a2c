/* What the conversions of this folder share. Internal to common/record. Layer: record.
 *
 * Each record has a _write (struct to message), a _read (message to struct) and a _clear (frees what a struct owns).
 * Readers and writers remember their first failure: what is called on them afterwards does nothing and returns 0 or
 * NULL, so a conversion is a plain list of its fields. KX_RECORD_DEFINE makes the public functions from the three.
 */
#ifndef KX_RECORD_SUPPORT_H
#define KX_RECORD_SUPPORT_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "common/base/buf.h"
#include "common/base/error.h"
#include "common/record/arena.h"
#include "common/record/types.h"

/* Writing: messages live in the arena and point into the record, which outlives them. */
struct kx_writer {
	kx_status status;
	struct kx_arena arena;
};

void kx_writer_open(struct kx_writer *w);
void kx_writer_fail(struct kx_writer *w, kx_status status);
/* An initialised message, or NULL once the writer has failed. */
void *kx_writer_new(struct kx_writer *w, const ProtobufCMessageDescriptor *descriptor);
/* Room for count pointers to messages; NULL when count is 0 or the writer has failed. */
void *kx_writer_list(struct kx_writer *w, size_t count);
/* Packs message unless the writer failed, ends the writer, and says how it went. */
kx_status kx_writer_close(struct kx_writer *w, const ProtobufCMessage *message, struct kx_buf *out);

ProtobufCBinaryData kx_write_bytes(const void *bytes, size_t len);
ProtobufCBinaryData kx_write_path(const char *path);                 /* NULL is "" */
ProtobufCBinaryData kx_write_sha(const uint8_t sha[KX_SHA_LEN]); /* all zero is absent */

#define KX_WRITER_NEW(w, message) kx_writer_new((w), &kinodex__v1__##message##__descriptor)

/* Reading: the message lives in the arena, the record gets copies of its own. */
struct kx_reader {
	kx_status status;
	struct kx_error *error;
	const char *type;
	struct kx_arena arena;
	unsigned depth;
	struct {
		const char *field;
		size_t item; /* SIZE_MAX: not one of many */
	} scope[6];
};

/* Unpacks without looking at values yet. NULL when the reader failed. */
const void *kx_reader_open(struct kx_reader *r, const ProtobufCMessageDescriptor *descriptor, const void *bytes,
			   size_t len, struct kx_error *error);
kx_status kx_reader_close(struct kx_reader *r);
/* Remembers and tells the first failure, with the path of the field ("Result.body.dim: ..."); field NULL: of the
 * message that was entered. */
void kx_reader_fail(struct kx_reader *r, kx_status status, const char *field, const char *format, ...)
	KX_PRINTF(4, 5);
/* Goes into a message inside the message; false when it is absent (a failure) or the reader has failed. */
bool kx_reader_enter(struct kx_reader *r, const char *field, const void *message);
bool kx_reader_enter_item(struct kx_reader *r, const char *field, size_t item);
void kx_reader_leave(struct kx_reader *r);
/* Zeroed memory that the record will own; NULL when count is 0. */
void *kx_reader_alloc(struct kx_reader *r, size_t count, size_t size);

void kx_read_version(struct kx_reader *r, uint32_t version);
uint64_t kx_read_u64(struct kx_reader *r, const char *field, uint64_t value, uint64_t min, uint64_t max);
uint32_t kx_read_u32(struct kx_reader *r, const char *field, uint32_t value, uint32_t min, uint32_t max);
uint64_t kx_read_us(struct kx_reader *r, const char *field, uint64_t value); /* 0 .. KX_MEDIA_US_MAX */
double kx_read_double(struct kx_reader *r, const char *field, double value, double min, double max);
/* Never NULL unless the reader failed. min and max are in bytes, without the zero. */
char *kx_read_string(struct kx_reader *r, const char *field, const char *value, size_t min, size_t max);
char *kx_read_path(struct kx_reader *r, const char *field, ProtobufCBinaryData value, size_t min);
void kx_read_sha(struct kx_reader *r, const char *field, ProtobufCBinaryData value, uint8_t out[KX_SHA_LEN]);
void kx_read_optional_sha(struct kx_reader *r, const char *field, ProtobufCBinaryData value,
			  uint8_t out[KX_SHA_LEN]);

/* Arrays: `have` elements came, exactly `want` are right. */
void *kx_read_bytes(struct kx_reader *r, const char *field, ProtobufCBinaryData value, size_t want);
uint64_t *kx_read_us_array(struct kx_reader *r, const char *field, const uint64_t *values, size_t have,
			   size_t want);
float *kx_read_floats(struct kx_reader *r, const char *field, const float *values, size_t have, size_t want,
		      float min, float max);
/* Allocates an array of structs for the `have` messages of a list, at most max, and sets *ret_count. */
void *kx_read_list(struct kx_reader *r, const char *field, size_t have, size_t max, size_t size,
		   uint32_t *ret_count);
char **kx_read_strings(struct kx_reader *r, const char *field, char *const *strings, size_t have, size_t max,
		       size_t min_len, size_t max_len, uint32_t *ret_count);
char **kx_read_labels(struct kx_reader *r, char *const *labels, size_t have, uint32_t *ret_count);
void kx_clear_strings(char **strings, uint32_t count);

/* Values that several records have. */
enum kx_modality kx_read_modality(struct kx_reader *r, uint32_t value);
enum kx_decode_mode kx_read_decode_mode(struct kx_reader *r, uint32_t value);
uint64_t kx_read_decode_tolerance(struct kx_reader *r, enum kx_decode_mode mode, uint64_t value);
enum kx_reason kx_read_reason(struct kx_reader *r, uint32_t value, enum kx_reason min);
uint32_t kx_read_tracks(struct kx_reader *r, uint32_t value);
uint32_t kx_read_dim(struct kx_reader *r, const char *field, size_t value);
double kx_read_fps(struct kx_reader *r, double value);
uint64_t kx_read_moment_us(struct kx_reader *r, uint64_t value);
/* class_ids and class_scores, of one length. */
void kx_read_classes(struct kx_reader *r, const uint32_t *ids, size_t id_count, const float *scores,
		     size_t score_count, uint32_t *ret_count, uint32_t **ret_ids, float **ret_scores);

/* The four functions that KX_RECORD_FUNCTIONS(name) declares, from name_write, name_read and name_clear. */
#define KX_RECORD_DEFINE(name, Message, message)                                                        \
	kx_status name##_pack(const struct name *record, struct kx_buf *out)                            \
	{                                                                                               \
		struct kx_writer w;                                                                     \
                                                                                                        \
		kx_writer_open(&w);                                                                     \
		return kx_writer_close(&w, (const ProtobufCMessage *)name##_write(&w, record), out);    \
	}                                                                                               \
                                                                                                        \
	kx_status name##_unpack(const void *bytes, size_t len, struct name **ret, struct kx_error *error) \
	{                                                                                               \
		struct kx_reader r;                                                                     \
		const Kinodex__V1__##Message *m =                                                       \
			kx_reader_open(&r, &kinodex__v1__##message##__descriptor, bytes, len, error);   \
		struct name *record = kx_reader_alloc(&r, 1, sizeof(*record));                          \
                                                                                                        \
		if (record != NULL)                                                                     \
			name##_read(&r, m, record);                                                     \
		if (kx_reader_close(&r) == KX_OK)                                                       \
			*ret = record;                                                                  \
		else                                                                                    \
			name##_free(record);                                                            \
		return r.status;                                                                        \
	}                                                                                               \
                                                                                                        \
	void name##_free(struct name *record)                                                           \
	{                                                                                               \
		if (record == NULL)                                                                     \
			return;                                                                         \
		name##_clear(record);                                                                   \
		free(record);                                                                           \
	}                                                                                               \
                                                                                                        \
	void name##_cleanup(struct name **record)                                                       \
	{                                                                                               \
		name##_free(*record);                                                                   \
		*record = NULL;                                                                         \
	}                                                                                               \
	_Static_assert(sizeof(struct name) > 0, "takes the semicolon")

#endif
