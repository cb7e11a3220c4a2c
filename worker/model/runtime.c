#include "worker/model/runtime.h"

#include <stdio.h>
#include <stdlib.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define LEAF7_EDX_AMX_BF16 (1u << 22) /* clang's cpuid.h has no name for it */

struct kx_runtime {
	ov_core_t *core;
	bool bf16_tiles;
};

kx_status kx_runtime_status(ov_status_e status, struct kx_error *error, const char *what)
{
	if (status == OK)
		return KX_OK;
	const char *detail = ov_get_last_err_msg();
	kx_error_set(error, KX_EIO, KX_ERROR_FATAL, "%s: OpenVINO: %s", what,
		     detail && *detail ? detail : ov_get_error_info(status));
	ov_free(detail);
	return KX_EIO;
}

ov_core_t *kx_runtime_core(const struct kx_runtime *runtime)
{
	return runtime->core;
}

/* Whether the CPU multiplies bf16 in tiles (AMX). With the older AVX-512 instructions alone, which OpenVINO also calls
 * bf16, every model here was slower than in f32 (docs/decisions/0005-inference.md). */
static bool cpu_has_bf16_tiles(void)
{
#if defined(__x86_64__)
	unsigned int eax, ebx, ecx, edx;

	return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx & LEAF7_EDX_AMX_BF16);
#else
	return false;
#endif
}

void kx_runtime_cpu(char ret_text[KX_RUNTIME_CPU_MAX])
{
	ret_text[0] = '\0';
#if defined(__x86_64__)
	unsigned int a[4] = {0}, b[4] = {0}, c[4] = {0};

	/* In leaf 1 ebx is the core that we run on, and in eax and what follows whom it was made by. */
	__get_cpuid(1, &a[0], &a[1], &a[2], &a[3]);
	__get_cpuid_count(7, 0, &b[0], &b[1], &b[2], &b[3]);
	__get_cpuid_count(7, 1, &c[0], &c[1], &c[2], &c[3]);
	snprintf(ret_text, KX_RUNTIME_CPU_MAX, "%x %x %x %x %x %x %x %x", a[0], a[2], a[3], b[1], b[2], b[3], c[0], c[3]);
#endif
}

kx_status kx_runtime_new(struct kx_runtime **ret, struct kx_error *error)
{
	struct kx_runtime *runtime = calloc(1, sizeof(*runtime));

	if (!runtime)
		return kx_error_nomem(error);
	kx_status status = kx_runtime_status(ov_core_create(&runtime->core), error,
					     "starting OpenVINO (run scripts/deps if its files are missing)");
	if (status) {
		free(runtime);
		return status;
	}
	runtime->bf16_tiles = cpu_has_bf16_tiles();
	*ret = runtime;
	return KX_OK;
}

void kx_runtime_free(struct kx_runtime *runtime)
{
	if (!runtime)
		return;
	ov_core_free(runtime->core);
	free(runtime);
}

enum kx_precision kx_runtime_precision(const struct kx_runtime *runtime, enum kx_precision wanted)
{
	if (wanted != KX_PRECISION_AUTO)
		return wanted;
	return runtime->bf16_tiles ? KX_PRECISION_BF16 : KX_PRECISION_F32;
}

const char *kx_precision_name(enum kx_precision precision)
{
	switch (precision) {
	case KX_PRECISION_F32:
		return "f32";
	case KX_PRECISION_BF16:
		return "bf16";
	case KX_PRECISION_AUTO:
		break;
	}
	return "auto";
}
