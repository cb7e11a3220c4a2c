/* What the files of kx_bench_serve share. */
#ifndef KX_BENCH_SERVE_H
#define KX_BENCH_SERVE_H

#include "common/base/error.h"
#include "tests/bench/factors.h"

#define KX_BENCH_SPACE "visual/made/1"
#define KX_BENCH_ID "made-%08llu"

void kx_bench_need(kx_status status, const struct kx_error *error); /* or the program ends */
/* A store of so many videos, kx_bench_draw_row() each, and its index, in a folder that is made. */
void kx_bench_make_store(const char *dir, uint64_t videos, uint32_t dim);

#endif
