/* What the index stores, as bytes: little-endian, each with a format version, and a checksum where a flipped bit would
 * otherwise be believed. Pure. Layer: shard/index.
 *
 * Decoders point into what they were given. KX_EVERSION: written by another version; KX_ECORRUPT: bytes that do not say
 * what they should; both with a message. What they accept may be used without another look, whoever wrote it.
 */
#ifndef KX_SHARD_INDEX_RECORD_H
#define KX_SHARD_INDEX_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "shard/index/index.h"

#define KX_RECORD_FORMAT 1u

uint32_t kx_crc32c(uint32_t crc, const void *bytes, size_t len); /* RFC 3720's; crc: 0, or of what came before */

/* An entry is kx_ivf's portable form: u32 row, f32 add, f32 mul, code. */
#define KX_ENTRY_HEAD 12u
uint32_t kx_entry_row(const void *entry);

/* A cell's entries. key: what it is stored under, which the checksum covers, so that a record is never taken for
 * another's. */
struct kx_cell_view {
	const uint8_t *entries;
	uint32_t count;
};
kx_status kx_cell_encode(const void *key, size_t key_len, const void *entries, uint32_t count, uint32_t entry_bytes,
			 struct kx_buf *out) KX_MUST_CHECK; /* appends */
kx_status kx_cell_decode(const void *key, size_t key_len, const void *bytes, size_t len, uint32_t entry_bytes,
			 struct kx_cell_view *ret, struct kx_error *error) KX_MUST_CHECK;

/* A change of a cell that its record does not have yet: an entry, or NULL for a row that is gone. */
#define KX_DELTA_MAX (8u + KX_ENTRY_HEAD + KX_IVF_DIM_MAX / 8)
size_t kx_delta_encode(const void *key, size_t key_len, const void *entry, uint32_t entry_bytes,
		       uint8_t out[KX_DELTA_MAX]);
kx_status kx_delta_decode(const void *key, size_t key_len, const void *bytes, size_t len, uint32_t entry_bytes,
			  const uint8_t **ret_entry, struct kx_error *error) KX_MUST_CHECK;

struct kx_row_view {
	const uint8_t *key;
	size_t key_len;
	const uint8_t *attributes;
	size_t attributes_len;
};
kx_status kx_row_encode(const struct kx_row_view *row, struct kx_buf *out) KX_MUST_CHECK; /* appends */
kx_status kx_row_decode(const void *bytes, size_t len, struct kx_row_view *ret, struct kx_error *error) KX_MUST_CHECK;

/* Centroids of cells chunk * KX_CHUNK_CELLS and on: few enough that a split rewrites little, many enough that opening
 * reads few values. */
#define KX_CHUNK_CELLS 16u
struct kx_chunk_view {
	uint32_t mask;        /* bit i: cell i of the chunk is there */
	const uint8_t *floats; /* [how many are there][dim], unaligned */
};
kx_status kx_chunk_encode(const void *key, size_t key_len, uint32_t mask, const float *const *centroids, uint32_t dim,
			  struct kx_buf *out) KX_MUST_CHECK; /* centroids: [KX_CHUNK_CELLS], read where mask says so */
kx_status kx_chunk_decode(const void *key, size_t key_len, const void *bytes, size_t len, uint32_t dim,
			  struct kx_chunk_view *ret, struct kx_error *error) KX_MUST_CHECK;

struct kx_space_record {
	char name[KX_INDEX_SPACE_NAME_MAX + 1];
	struct kx_ivf_recipe recipe;
	uint32_t generation;
	bool trained;       /* else there is one cell */
	bool filling;       /* kx_index_build() has not ended: what rows are there count for nothing */
	uint64_t trained_rows;
	double trained_distance2; /* mean, to the centroid */
};
#define KX_SPACE_RECORD_MAX (64u + KX_INDEX_SPACE_NAME_MAX)
size_t kx_space_encode(const struct kx_space_record *space, uint8_t out[KX_SPACE_RECORD_MAX]);
kx_status kx_space_decode(const void *bytes, size_t len, struct kx_space_record *ret, struct kx_error *error)
	KX_MUST_CHECK;

struct kx_counts_record {
	uint32_t rows_bound; /* every row that was ever used is below */
	uint64_t rows;
};
#define KX_COUNTS_BYTES 16u
void kx_counts_encode(const struct kx_counts_record *counts, uint8_t out[KX_COUNTS_BYTES]);
kx_status kx_counts_decode(const void *bytes, size_t len, struct kx_counts_record *ret, struct kx_error *error)
	KX_MUST_CHECK;

#define KX_TUNING_BYTES (12u + 8u * KX_IVF_TUNING_POINTS)
void kx_tuning_encode(const struct kx_ivf_tuning *tuning, float scale, uint8_t out[KX_TUNING_BYTES]);
kx_status kx_tuning_decode(const void *bytes, size_t len, struct kx_ivf_tuning *ret, float *ret_scale,
			   struct kx_error *error) KX_MUST_CHECK;

/* The head of the mapped file of vectors; see vectors.h. */
struct kx_file_record {
	uint32_t dim;
	uint64_t session;      /* 0: none */
	uint64_t next_session; /* 0: none */
	bool clean;
};
#define KX_FILE_RECORD_BYTES 48u
void kx_file_encode(const struct kx_file_record *file, uint8_t out[KX_FILE_RECORD_BYTES]);
kx_status kx_file_decode(const void *bytes, size_t len, struct kx_file_record *ret) KX_MUST_CHECK;

/* Little-endian numbers. */
void kx_le32_put(uint8_t out[4], uint32_t value);
uint32_t kx_le32_get(const uint8_t in[4]);
void kx_le64_put(uint8_t out[8], uint64_t value);
uint64_t kx_le64_get(const uint8_t in[8]);

#endif
