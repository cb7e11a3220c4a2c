/* What fetch.c and stream.c share beside the request. Layer: fetch, private. */
#ifndef KX_FETCH_STREAMS_H
#define KX_FETCH_STREAMS_H

#include <stdint.h>

struct kx_fetch;

/* Tells all streams to end, and waits for their threads. */
void kx_streams_end(struct kx_fetch *fetch);

/* A Last-Modified in nanoseconds of Unix time; 0 when it can't be read. */
uint64_t kx_fetch_time_ns(const char *modified);

#endif
