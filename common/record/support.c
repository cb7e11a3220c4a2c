#include "common/record/support.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/fault.h"

/* What unpacking may take beside the message's own length. A list of the smallest useful messages needs about ten
 * times its length; more than this is an attack (empty messages in a list take 40 times theirs). The base lets a list
 * of ten thousand ids of two letters pass, which takes 25 times its length. */
#define GROWTH_MAX ((size_t)16)
#define GROWTH_BASE ((size_t)1 << 20)

static const uint8_t no_sha[KX_SHA_LEN];

void kx_writer_open(struct kx_writer *w)
{
	*w = (struct kx_writer){.arena = {.left = SIZE_MAX / 2}};
}

void kx_writer_fail(struct kx_writer *w, kx_status status)
{
	if (w->status == KX_OK)
		w->status = status;
}

static void *writer_alloc(struct kx_writer *w, size_t bytes)
{
	void *memory = w->status == KX_OK ? kx_arena_alloc(&w->arena, bytes) : NULL;

	if (memory == NULL)
		kx_writer_fail(w, KX_ENOMEM);
	return memory;
}

void *kx_writer_new(struct kx_writer *w, const ProtobufCMessageDescriptor *descriptor)
{
	void *message = writer_alloc(w, descriptor->sizeof_message);

	if (message != NULL)
		protobuf_c_message_init(descriptor, message);
	return message;
}

void *kx_writer_list(struct kx_writer *w, size_t count)
{
	return count > 0 ? writer_alloc(w, count * sizeof(void *)) : NULL;
}

/* protobuf-c packs into memory of the right size, or through this. */
struct buf_sink {
	ProtobufCBuffer base;
	struct kx_buf *out;
	kx_status status;
};

static void sink_append(ProtobufCBuffer *base, size_t len, const uint8_t *bytes)
{
	struct buf_sink *sink = (struct buf_sink *)base;

	if (sink->status == KX_OK)
		sink->status = kx_buf_append(sink->out, bytes, len);
}

static kx_status writer_pack(const ProtobufCMessage *message, struct kx_buf *out)
{
	struct buf_sink sink = {.base = {.append = sink_append}, .out = out};
	size_t size = protobuf_c_message_get_packed_size(message);

	if (size > KX_RECORD_MAX)
		return KX_ETOOBIG;
	/* Room for all of it first: a buffer that is too small is refused before anything was appended. */
	sink.status = kx_buf_reserve(out, size);
	if (sink.status == KX_OK)
		protobuf_c_message_pack_to_buffer(message, &sink.base);
	return sink.status;
}

kx_status kx_writer_close(struct kx_writer *w, const ProtobufCMessage *message, struct kx_buf *out)
{
	if (w->status == KX_OK)
		w->status = writer_pack(message, out);
	kx_arena_done(&w->arena);
	return w->status;
}

ProtobufCBinaryData kx_write_bytes(const void *bytes, size_t len)
{
	/* protobuf-c only reads from it, but has one type for both directions. */
	return (ProtobufCBinaryData){.len = len, .data = (uint8_t *)(uintptr_t)bytes};
}

ProtobufCBinaryData kx_write_path(const char *path)
{
	return kx_write_bytes(path, path != NULL ? strlen(path) : 0);
}

ProtobufCBinaryData kx_write_sha(const uint8_t sha[KX_SHA_LEN])
{
	return kx_write_bytes(sha, memcmp(sha, no_sha, KX_SHA_LEN) != 0 ? KX_SHA_LEN : 0);
}

static void *arena_alloc_hook(void *arena, size_t bytes)
{
	return kx_arena_alloc(arena, bytes);
}

static void arena_free_hook(void *arena, void *memory)
{
	(void)arena;
	(void)memory;
}

static kx_status reader_refuse(struct kx_reader *r, size_t len)
{
	if (r->arena.failed)
		return kx_error_nomem(r->error);
	if (r->arena.refused)
		return kx_error_set(r->error, KX_ETOOBIG, KX_ERROR_POISON,
				    "%s: %zu bytes that unpack to more than %zu times as much", r->type, len,
				    GROWTH_MAX);
	return kx_error_set(r->error, KX_ECORRUPT, KX_ERROR_POISON, "%s: %zu bytes that are no message of this kind",
			    r->type, len);
}

const void *kx_reader_open(struct kx_reader *r, const ProtobufCMessageDescriptor *descriptor, const void *bytes,
			   size_t len, struct kx_error *error)
{
	ProtobufCAllocator allocator = {arena_alloc_hook, arena_free_hook, &r->arena};
	const void *message;

	*r = (struct kx_reader){.error = error, .type = descriptor->short_name};
	if (len > KX_RECORD_MAX) {
		r->status = kx_error_set(error, KX_ETOOBIG, KX_ERROR_POISON,
					 "%s: %zu bytes, at most %u are read", r->type, len, KX_RECORD_MAX);
		return NULL;
	}
	r->arena.left = GROWTH_MAX * len + GROWTH_BASE;
	message = protobuf_c_message_unpack(descriptor, &allocator, len, bytes);
	if (message == NULL)
		r->status = reader_refuse(r, len);
	return message;
}

kx_status kx_reader_close(struct kx_reader *r)
{
	kx_arena_done(&r->arena);
	return r->status;
}

static void reader_path(const struct kx_reader *r, const char *field, char *out, size_t out_len)
{
	int at = snprintf(out, out_len, "%s", r->type);

	for (unsigned i = 0; i < r->depth && at > 0 && (size_t)at < out_len; i++) {
		at += snprintf(out + at, out_len - (size_t)at, ".%s", r->scope[i].field);
		if (r->scope[i].item != SIZE_MAX && (size_t)at < out_len)
			at += snprintf(out + at, out_len - (size_t)at, "[%zu]", r->scope[i].item);
	}
	if (field != NULL && at > 0 && (size_t)at < out_len)
		snprintf(out + at, out_len - (size_t)at, ".%s", field);
}

void kx_reader_fail(struct kx_reader *r, kx_status status, const char *field, const char *format, ...)
{
	char path[192];
	char what[192];
	va_list args;

	if (r->status != KX_OK)
		return;
	reader_path(r, field, path, sizeof(path));
	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	r->status = kx_error_set(r->error, status, KX_ERROR_POISON, "%s: %s", path, what);
}

static void reader_push(struct kx_reader *r, const char *field, size_t item)
{
	r->scope[r->depth].field = field;
	r->scope[r->depth].item = item;
	r->depth++;
}

bool kx_reader_enter(struct kx_reader *r, const char *field, const void *message)
{
	if (message == NULL)
		kx_reader_fail(r, KX_ECORRUPT, field, "absent");
	if (r->status != KX_OK)
		return false;
	reader_push(r, field, SIZE_MAX);
	return true;
}

bool kx_reader_enter_item(struct kx_reader *r, const char *field, size_t item)
{
	if (r->status != KX_OK)
		return false;
	reader_push(r, field, item);
	return true;
}

void kx_reader_leave(struct kx_reader *r)
{
	r->depth--;
}

void *kx_reader_alloc(struct kx_reader *r, size_t count, size_t size)
{
	void *memory;

	if (r->status != KX_OK || count == 0)
		return NULL;
	memory = kx_fault("record.alloc") ? NULL : calloc(count, size);
	if (memory == NULL)
		r->status = kx_error_nomem(r->error);
	return memory;
}

void kx_read_version(struct kx_reader *r, uint32_t version)
{
	if (version != KX_FORMAT_VERSION)
		kx_reader_fail(r, KX_EVERSION, "version", "%" PRIu32 ", this program reads %u", version,
			       KX_FORMAT_VERSION);
}

uint64_t kx_read_u64(struct kx_reader *r, const char *field, uint64_t value, uint64_t min, uint64_t max)
{
	if (value < min || value > max)
		kx_reader_fail(r, KX_ECORRUPT, field, "%" PRIu64 " is not in %" PRIu64 "..%" PRIu64, value, min,
			       max);
	return r->status == KX_OK ? value : 0;
}

uint32_t kx_read_u32(struct kx_reader *r, const char *field, uint32_t value, uint32_t min, uint32_t max)
{
	return (uint32_t)kx_read_u64(r, field, value, min, max);
}

uint64_t kx_read_us(struct kx_reader *r, const char *field, uint64_t value)
{
	return kx_read_u64(r, field, value, 0, KX_MEDIA_US_MAX);
}

double kx_read_double(struct kx_reader *r, const char *field, double value, double min, double max)
{
	/* Negated, so that NaN is outside too. */
	if (!(value >= min && value <= max))
		kx_reader_fail(r, KX_ECORRUPT, field, "%g is not in %g..%g", value, min, max);
	return r->status == KX_OK ? value : 0.0;
}

double kx_read_fps(struct kx_reader *r, double value)
{
	return kx_read_double(r, "fps", value, KX_FPS_MIN, KX_FPS_MAX);
}

uint32_t kx_read_dim(struct kx_reader *r, const char *field, size_t value)
{
	return (uint32_t)kx_read_u64(r, field, value, 1, KX_DIM_MAX);
}

static bool length_is_within(struct kx_reader *r, const char *field, size_t len, size_t min, size_t max)
{
	if (len < min)
		kx_reader_fail(r, KX_ECORRUPT, field, "absent");
	else if (len > max)
		kx_reader_fail(r, KX_ETOOBIG, field, "%zu bytes, at most %zu are allowed", len, max);
	return r->status == KX_OK;
}

/* A zero byte stands behind the copy. */
static void *reader_copy(struct kx_reader *r, const void *bytes, size_t len)
{
	char *copy = kx_reader_alloc(r, len + 1, 1);

	if (copy != NULL && len > 0)
		memcpy(copy, bytes, len);
	return copy;
}

char *kx_read_string(struct kx_reader *r, const char *field, const char *value, size_t min, size_t max)
{
	size_t len = strlen(value);

	return length_is_within(r, field, len, min, max) ? reader_copy(r, value, len) : NULL;
}

char *kx_read_path(struct kx_reader *r, const char *field, ProtobufCBinaryData value, size_t min)
{
	if (!length_is_within(r, field, value.len, min, KX_PATH_MAX))
		return NULL;
	if (value.len > 0 && memchr(value.data, 0, value.len) != NULL)
		kx_reader_fail(r, KX_ECORRUPT, field, "a path with a zero byte in it");
	return reader_copy(r, value.data, value.len);
}

void kx_read_sha(struct kx_reader *r, const char *field, ProtobufCBinaryData value, uint8_t out[KX_SHA_LEN])
{
	static const uint8_t none[KX_SHA_LEN];

	/* A writer leaves zeros out; somebody else's count as much. */
	if (value.len == 0 || (value.len == KX_SHA_LEN && memcmp(value.data, none, KX_SHA_LEN) == 0))
		kx_reader_fail(r, KX_ECORRUPT, field, "absent");
	kx_read_optional_sha(r, field, value, out);
}

void kx_read_optional_sha(struct kx_reader *r, const char *field, ProtobufCBinaryData value,
			  uint8_t out[KX_SHA_LEN])
{
	if (value.len != 0 && value.len != KX_SHA_LEN)
		kx_reader_fail(r, KX_ECORRUPT, field, "%zu bytes, a SHA-256 has %d", value.len, KX_SHA_LEN);
	if (r->status == KX_OK && value.len == KX_SHA_LEN)
		memcpy(out, value.data, KX_SHA_LEN);
}

static bool count_is(struct kx_reader *r, const char *field, size_t have, size_t want)
{
	if (have != want)
		kx_reader_fail(r, KX_ECORRUPT, field, "%zu elements where %zu belong", have, want);
	return r->status == KX_OK;
}

void *kx_read_bytes(struct kx_reader *r, const char *field, ProtobufCBinaryData value, size_t want)
{
	return count_is(r, field, value.len, want) ? reader_copy(r, value.data, value.len) : NULL;
}

uint64_t *kx_read_us_array(struct kx_reader *r, const char *field, const uint64_t *values, size_t have,
			   size_t want)
{
	uint64_t *copy = NULL;

	if (count_is(r, field, have, want))
		copy = kx_reader_alloc(r, have, sizeof(*copy));
	for (size_t i = 0; copy != NULL && i < have; i++)
		copy[i] = kx_read_us(r, field, values[i]);
	return copy;
}

float *kx_read_floats(struct kx_reader *r, const char *field, const float *values, size_t have, size_t want,
		      float min, float max)
{
	float *copy = NULL;

	if (count_is(r, field, have, want))
		copy = kx_reader_alloc(r, have, sizeof(*copy));
	for (size_t i = 0; copy != NULL && i < have; i++)
		copy[i] = (float)kx_read_double(r, field, (double)values[i], (double)min, (double)max);
	return copy;
}

void *kx_read_list(struct kx_reader *r, const char *field, size_t have, size_t max, size_t size,
		   uint32_t *ret_count)
{
	void *list;

	if (have > max)
		kx_reader_fail(r, KX_ETOOBIG, field, "%zu elements, at most %zu are allowed", have, max);
	list = kx_reader_alloc(r, have, size);
	*ret_count = list != NULL ? (uint32_t)have : 0;
	return list;
}

char **kx_read_strings(struct kx_reader *r, const char *field, char *const *strings, size_t have, size_t max,
		       size_t min_len, size_t max_len, uint32_t *ret_count)
{
	char **list = kx_read_list(r, field, have, max, sizeof(*list), ret_count);

	for (uint32_t i = 0; i < *ret_count; i++)
		list[i] = kx_read_string(r, field, strings[i], min_len, max_len);
	return list;
}

char **kx_read_labels(struct kx_reader *r, char *const *labels, size_t have, uint32_t *ret_count)
{
	return kx_read_strings(r, "labels", labels, have, KX_LABELS_MAX, 0, KX_TEXT_MAX, ret_count);
}

void kx_clear_strings(char **strings, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		free(strings[i]);
	free(strings);
}

enum kx_modality kx_read_modality(struct kx_reader *r, uint32_t value)
{
	return (enum kx_modality)kx_read_u32(r, "modality", value, KX_VISUAL, KX_AUDIO);
}

enum kx_decode_mode kx_read_decode_mode(struct kx_reader *r, uint32_t value)
{
	return (enum kx_decode_mode)kx_read_u32(r, "decode_mode", value, KX_DECODE_EXACT, KX_DECODE_KEYFRAME);
}

uint64_t kx_read_decode_tolerance(struct kx_reader *r, enum kx_decode_mode mode, uint64_t value)
{
	if (mode != KX_DECODE_TOLERANT && value != 0)
		kx_reader_fail(r, KX_ECORRUPT, "decode_tolerance_us", "of a mode that has none");
	else if (mode == KX_DECODE_TOLERANT && (value < 1 || value > KX_TOLERANCE_US_MAX))
		kx_reader_fail(r, KX_ECORRUPT, "decode_tolerance_us", "%" PRIu64 " is not in 1..%" PRIu64, value,
			       KX_TOLERANCE_US_MAX);
	return value;
}

enum kx_reason kx_read_reason(struct kx_reader *r, uint32_t value, enum kx_reason min)
{
	return (enum kx_reason)kx_read_u32(r, "reason", value, min, KX_REASON_COUNT - 1);
}

uint32_t kx_read_tracks(struct kx_reader *r, uint32_t value)
{
	return kx_read_u32(r, "tracks", value, KX_TRACK_VISUAL, KX_TRACK_VISUAL | KX_TRACK_AUDIO);
}

uint64_t kx_read_moment_us(struct kx_reader *r, uint64_t value)
{
	return kx_read_u64(r, "moment_us", value, 1, KX_MEDIA_US_MAX);
}

void kx_read_classes(struct kx_reader *r, const uint32_t *ids, size_t id_count, const float *scores,
		     size_t score_count, uint32_t *ret_count, uint32_t **ret_ids, float **ret_scores)
{
	uint32_t *copy = kx_read_list(r, "class_ids", id_count, KX_CLASSES_MAX, sizeof(*copy), ret_count);

	if (copy != NULL)
		memcpy(copy, ids, id_count * sizeof(*copy));
	*ret_ids = copy;
	*ret_scores = kx_read_floats(r, "class_scores", scores, score_count, *ret_count, 0.0f, 1.0f);
}
