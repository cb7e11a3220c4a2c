#include "common/base/fault.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/macros.h"
#include "common/base/str.h"

#define ENV_UNREAD (-1)

struct fault_point {
	char name[KX_FAULT_NAME_MAX + 1];
	uint64_t left; /* passes until it fails; 0 is a free slot */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct fault_point points[KX_FAULT_POINTS];

/* How many points are armed. ENV_UNREAD sends the first pass ever down the slow way, which reads KINODEX_FAULT. */
static atomic_int armed = ENV_UNREAD;

static struct fault_point *find_point(const char *name)
{
	for (size_t i = 0; i < KX_ARRAY_LEN(points); i++)
		if (points[i].left && kx_str_eq(points[i].name, name))
			return &points[i];
	return NULL;
}

static struct fault_point *free_point(void)
{
	for (size_t i = 0; i < KX_ARRAY_LEN(points); i++)
		if (!points[i].left)
			return &points[i];
	return NULL;
}

static bool arm(const char *name, uint64_t nth)
{
	struct fault_point *point = find_point(name);

	if (!point && !nth)
		return true;
	if (!point) {
		point = free_point();
		if (!point || strlen(name) > KX_FAULT_NAME_MAX)
			return false;
		strcpy(point->name, name);
		atomic_fetch_add(&armed, 1);
	}
	point->left = nth;
	if (!nth)
		atomic_fetch_sub(&armed, 1);
	return true;
}

/* "point:nth". A fault that silently isn't armed would let a test pass that tests nothing, so that is said. */
static void arm_from_text(char *text)
{
	char *colon = strrchr(text, ':');
	uint64_t nth = 0;

	if (colon)
		*colon = '\0';
	if (!colon || kx_parse_u64(colon + 1, &nth) || !arm(text, nth))
		kx_log(KX_LOG_ERROR, "KINODEX_FAULT: can't arm \"%s\": write point:nth, at most %d of them", text,
		       KX_FAULT_POINTS);
}

static void read_environment(void)
{
	if (atomic_load(&armed) != ENV_UNREAD)
		return;
	atomic_store(&armed, 0);

	const char *value = getenv("KINODEX_FAULT");
	if (!value || !*value)
		return;
	char *list KX_CLEANUP(kx_cleanup_free) = strdup(value);
	char *rest = NULL;
	for (char *text = list ? strtok_r(list, ",", &rest) : NULL; text; text = strtok_r(NULL, ",", &rest))
		arm_from_text(text);
}

static bool pass(const char *name)
{
	bool failing = false;

	pthread_mutex_lock(&lock);
	read_environment();
	struct fault_point *point = find_point(name);
	if (point && --point->left == 0) {
		atomic_fetch_sub(&armed, 1);
		failing = true;
	}
	pthread_mutex_unlock(&lock);
	if (failing)
		errno = EIO;
	return failing;
}

bool kx_fault(const char *point)
{
	if (atomic_load_explicit(&armed, memory_order_relaxed) == 0)
		return false;
	return pass(point);
}

void kx_fault_arm(const char *point, uint64_t nth)
{
	pthread_mutex_lock(&lock);
	read_environment();
	bool fits = arm(point, nth);
	pthread_mutex_unlock(&lock);
	assert(fits && "too many fault points, or a name too long");
	(void)fits;
}

void kx_fault_clear(void)
{
	pthread_mutex_lock(&lock);
	memset(points, 0, sizeof(points));
	atomic_store(&armed, 0);
	pthread_mutex_unlock(&lock);
}
