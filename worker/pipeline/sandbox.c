#include "worker/pipeline/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/fault.h"
#include "common/base/macros.h"
#include "worker/pipeline/confine.h"

/* Owns nothing anywhere: "nobody" of every Linux distribution. */
#define NOBODY 65534

/* Stands for the child's process id in the filter, which is built before there is a child. No system call number, size
 * or flag of the filter is that large. */
#define PID_MARK 0x6b78706du

/* A sanitizer's report reads /proc and the program's symbols, and probes memory through pipes. Only such builds, which
 * are for tests, let it. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

struct kx_sandbox {
	bool changes_user; /* we are root, and nobody exists in this user namespace */
	size_t len;
	struct sock_filter *code;
};

/* What libav, ZeroMQ, malloc() and a clean exit need, without conditions. */
static const int allowed[] = {
	/* the descriptors it has */
	SCMP_SYS(read), SCMP_SYS(pread64), SCMP_SYS(write), SCMP_SYS(lseek), SCMP_SYS(fstat), SCMP_SYS(close),
	SCMP_SYS(recvfrom), SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_ctl),
	/* memory; mmap, mprotect have conditions */
	SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise),
	/* threads that there are: they may be at their first instructions yet, where ZeroMQ sets up how they are scheduled
	 * (prctl, sched_setscheduler have conditions); and their end */
	SCMP_SYS(futex), SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity), SCMP_SYS(set_robust_list), SCMP_SYS(rseq),
	SCMP_SYS(sched_getparam), SCMP_SYS(sched_getscheduler), SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(gettid),
	SCMP_SYS(getpid), SCMP_SYS(getppid), SCMP_SYS(restart_syscall),
	/* signals to itself; tgkill has a condition */
	SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigaction), SCMP_SYS(sigaltstack),
	/* time, and qsort(), which asks how much memory there is */
	SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres), SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep),
	SCMP_SYS(gettimeofday), SCMP_SYS(setitimer), SCMP_SYS(sysinfo),
};

static const int sanitizers[] = {
	SCMP_SYS(readlink), SCMP_SYS(readlinkat), SCMP_SYS(newfstatat), SCMP_SYS(ioctl), SCMP_SYS(prlimit64),
	SCMP_SYS(pipe), SCMP_SYS(pipe2), SCMP_SYS(getrusage), SCMP_SYS(uname), SCMP_SYS(access),
};

/* libseccomp says -EDOM or -EFAULT for a call that this architecture does not have, such as poll on arm64. */
static bool add(scmp_filter_ctx filter, int number)
{
	int failed = number < 0 ? 0 : seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0);

	return failed == 0;
}

static bool add_all(scmp_filter_ctx filter, const int *numbers, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (!add(filter, numbers[i]))
			return false;
	}
	return true;
}

static bool add_if(scmp_filter_ctx filter, int number, struct scmp_arg_cmp condition)
{
	return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number, 1, &condition) == 0;
}

static bool add_conditional(scmp_filter_ctx filter)
{
	const scmp_datum_t writing = O_ACCMODE | O_CREAT | O_TRUNC;
	bool good = add_if(filter, SCMP_SYS(mmap), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)) &&
		    add_if(filter, SCMP_SYS(mprotect), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)) &&
		    add_if(filter, SCMP_SYS(prctl), SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME, 0)) &&
		    add_if(filter, SCMP_SYS(sched_setscheduler), SCMP_A1(SCMP_CMP_EQ, SCHED_OTHER, 0)) &&
		    /* to the peer of a connection, not to an address */
		    add_if(filter, SCMP_SYS(sendto), SCMP_A4(SCMP_CMP_EQ, 0, 0)) &&
		    /* abort() and raise() */
		    add_if(filter, SCMP_SYS(tgkill), SCMP_A0(SCMP_CMP_EQ, PID_MARK, 0));

	if (good && SANITIZED)
		good = add_if(filter, SCMP_SYS(openat), SCMP_A2(SCMP_CMP_MASKED_EQ, writing, 0)) &&
#ifdef __NR_open
		       add_if(filter, SCMP_SYS(open), SCMP_A1(SCMP_CMP_MASKED_EQ, writing, 0)) &&
#endif
		       add_all(filter, sanitizers, KX_ARRAY_LEN(sanitizers));
	return good;
}

static bool build(scmp_filter_ctx filter)
{
	return seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS) == 0 &&
	       seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2) == 0 &&
	       add_all(filter, allowed, KX_ARRAY_LEN(allowed)) && add_conditional(filter);
}

/* libseccomp writes programs to descriptors only. */
static kx_status take_code(struct kx_sandbox *sandbox, scmp_filter_ctx filter, struct kx_error *error)
{
	KX_CLEANUP(kx_cleanup_close) int fd = memfd_create("kx-filter", MFD_CLOEXEC);
	off_t bytes;
	size_t marks = 0;

	if (fd < 0 || seccomp_export_bpf(filter, fd) != 0 || (bytes = lseek(fd, 0, SEEK_END)) <= 0 ||
	    (size_t)bytes > BPF_MAXINSNS * sizeof(*sandbox->code))
		return kx_error_set(error, KX_EIO, KX_ERROR_FATAL, "the filter of system calls can't be built");
	sandbox->code = malloc((size_t)bytes);
	if (!sandbox->code)
		return kx_error_nomem(error);
	sandbox->len = (size_t)bytes / sizeof(*sandbox->code);
	if (pread(fd, sandbox->code, (size_t)bytes, 0) != bytes)
		return kx_error_from_errno(error, errno, "filter of system calls");
	for (size_t i = 0; i < sandbox->len; i++)
		marks += sandbox->code[i].k == PID_MARK;
	return marks == 1 ? KX_OK : kx_error_set(error, KX_EIO, KX_ERROR_FATAL, "the filter of system calls is not ours");
}

static bool kernel_can(void)
{
	uint32_t action = SECCOMP_RET_KILL_PROCESS;

	return !kx_fault("sandbox.kernel") &&
	       syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

/* Root of a container may have no nobody to become; it then keeps its user, without any capability. */
static bool can_become_nobody(void)
{
	return geteuid() == 0 && seteuid(NOBODY) == 0 && seteuid(0) == 0;
}

static kx_status fill(struct kx_sandbox *sandbox, struct kx_error *error)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	kx_status status;

	if (!filter)
		return kx_error_nomem(error);
	status = build(filter) ? take_code(sandbox, filter, error)
			       : kx_error_set(error, KX_EIO, KX_ERROR_FATAL,
					      "the filter of system calls can't be built");
	seccomp_release(filter);
	sandbox->changes_user = can_become_nobody();
	return status;
}

kx_status kx_sandbox_new(struct kx_sandbox **ret, struct kx_error *error)
{
	struct kx_sandbox *sandbox;
	kx_status status;

	if (!kernel_can())
		return kx_error_set(error, KX_EUNSUPPORTED, KX_ERROR_FATAL,
				    "this kernel or container has no seccomp filters");
	sandbox = calloc(1, sizeof(*sandbox));
	if (!sandbox)
		return kx_error_nomem(error);
	status = fill(sandbox, error);
	if (status != KX_OK) {
		kx_sandbox_free(sandbox);
		return status;
	}
	*ret = sandbox;
	return KX_OK;
}

void kx_sandbox_free(struct kx_sandbox *sandbox)
{
	if (!sandbox)
		return;
	free(sandbox->code);
	free(sandbox);
}

/* ---- in the child ---- */

kx_status kx_sandbox_prepare(const struct kx_sandbox *sandbox)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};

	if (!sandbox->changes_user)
		return syscall(SYS_capset, &header, none) == 0 ? KX_OK : KX_EPERM;
	/* A user namespace may forbid setgroups, and then has no groups to give up. */
	if (setgroups(0, NULL) != 0 && errno != EPERM)
		return KX_EPERM;
	return setresgid(NOBODY, NOBODY, NOBODY) == 0 ? KX_OK : KX_EPERM;
}

/* glibc does this in all threads, by a signal to each. Capabilities go with the user. */
static kx_status become_nobody(void)
{
	return setresuid(NOBODY, NOBODY, NOBODY) == 0 ? KX_OK : KX_EPERM;
}


static bool limit_to(__rlimit_resource_t what, rlim_t most)
{
	const struct rlimit limit = {.rlim_cur = most, .rlim_max = most};

	return setrlimit(what, &limit) == 0;
}

/* No file grows, no process or thread starts, and no descriptor is made: the limit is the first number that is free,
 * and what stands below it is in use. */
static kx_status fix_limits(void)
{
	int next = SANITIZED ? -1 : dup(STDIN_FILENO);

	if (!SANITIZED && next < 0)
		return KX_EIO;
	if (next >= 0)
		close(next);
	if (next >= 0 && !limit_to(RLIMIT_NOFILE, (rlim_t)next))
		return KX_EIO;
	return limit_to(RLIMIT_FSIZE, 0) && limit_to(RLIMIT_NPROC, 0) && limit_to(RLIMIT_CORE, 0) ? KX_OK : KX_EIO;
}

static kx_status filter_calls(const struct kx_sandbox *sandbox)
{
	KX_CLEANUP(kx_cleanup_free) struct sock_filter *code = calloc(sandbox->len, sizeof(*code));
	const struct sock_fprog program = {.len = (unsigned short)sandbox->len, .filter = code};

	if (!code)
		return KX_ENOMEM;
	for (size_t i = 0; i < sandbox->len; i++) {
		code[i] = sandbox->code[i];
		if (code[i].k == PID_MARK)
			code[i].k = (uint32_t)getpid();
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return KX_EPERM;
	/* All threads or none: ZeroMQ's have run for a while. It answers with a thread's number where one can't follow. */
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0 ? KX_OK : KX_EPERM;
}

kx_status kx_sandbox_enter(const struct kx_sandbox *sandbox, pid_t parent)
{
	kx_status status = sandbox->changes_user ? become_nobody() : KX_OK;

	if (status == KX_OK)
		status = kx_confine_die_with(parent);
	if (status == KX_OK)
		status = fix_limits();
	return status == KX_OK ? filter_calls(sandbox) : status;
}
