#include "worker/pipeline/verdict.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "common/base/str.h"

static void say(struct kx_verdict *ret, enum kx_reason reason, bool retriable, const char *format, ...)
	KX_PRINTF(4, 5);

static void say(struct kx_verdict *ret, enum kx_reason reason, bool retriable, const char *format, ...)
{
	va_list args;

	ret->reason = reason;
	ret->retriable = retriable;
	va_start(args, format);
	vsnprintf(ret->message, sizeof(ret->message), format, args);
	va_end(args);
}

static void say_memory(struct kx_verdict *ret, const struct kx_decode_request *request)
{
	char limit[32];

	kx_format_bytes(request->memory_limit_bytes, limit, sizeof(limit));
	say(ret, KX_REASON_MEMORY_LIMIT, false, "decoding needs more memory than the limit of %s", limit);
}

/* A library that aborts, or runs into NULL, when an allocation failed looks like any crash; but it had grown. */
static bool looks_starved(const struct kx_host_exit *exit, const struct kx_decode_request *request, int signal)
{
	uint64_t limit = request->memory_limit_bytes;

	return limit > 0 && (signal == SIGABRT || signal == SIGSEGV || signal == SIGBUS) &&
	       exit->max_rss_bytes >= limit - limit / 4;
}

static bool out_of_cpu(const struct kx_host_exit *exit, const struct kx_decode_request *request, int signal)
{
	return signal == SIGXCPU ||
	       (signal == SIGKILL && request->cpu_limit_ms > 0 && exit->cpu_us / 1000 >= request->cpu_limit_ms);
}

static void by_signal(const struct kx_host_exit *exit, const struct kx_decode_request *request, int signal,
		      struct kx_verdict *ret)
{
	const char *name = sigabbrev_np(signal);

	if (out_of_cpu(exit, request, signal))
		say(ret, KX_REASON_CPU_LIMIT, false, "decoding took more than the limit of %" PRIu64 " s of CPU time",
		    (request->cpu_limit_ms + 999) / 1000);
	else if (signal == SIGSYS)
		say(ret, KX_REASON_SANDBOX, false,
		    "the decoder was killed for a system call that it has no need of; the kernel's log has its number");
	else if (signal == SIGALRM)
		say(ret, KX_REASON_WALL_LIMIT, true, "decoding took more than the limit of %" PRIu64 " ms",
		    request->wall_limit_ms);
	else if (looks_starved(exit, request, signal))
		say_memory(ret, request);
	else
		say(ret, KX_REASON_CRASHED, true, "the decoder was ended by SIG%s", name ? name : "?");
}

static void by_status(const struct kx_decode_request *request, int status, struct kx_verdict *ret)
{
	if (status == KX_CHILD_NOMEM)
		say_memory(ret, request);
	else if (status == KX_CHILD_SETUP)
		say(ret, KX_REASON_INTERNAL, true, "the decoder could not be put under its limits");
	else if (status == KX_CHILD_LOST)
		say(ret, KX_REASON_INTERNAL, true, "the decoder lost its channel to the worker");
	else
		say(ret, KX_REASON_CRASHED, true, "the decoder ended with status %d before it was done", status);
}

void kx_verdict_of(const struct kx_host_exit *exit, const struct kx_decode_request *request, bool wall_killed,
		   struct kx_verdict *ret)
{
	if (exit->header.error != 0)
		say(ret, KX_REASON_INTERNAL, true, "no decoder could be started: %s",
		    strerrordesc_np((int)exit->header.error));
	else if (wall_killed)
		say(ret, KX_REASON_WALL_LIMIT, true, "decoding took more than the limit of %" PRIu64 " ms",
		    request->wall_limit_ms);
	else if (WIFSIGNALED(exit->wait_status))
		by_signal(exit, request, WTERMSIG(exit->wait_status), ret);
	else
		by_status(request, WEXITSTATUS(exit->wait_status), ret);
}
