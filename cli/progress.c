#include "cli/progress.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/str.h"

#define REDRAW_US 100000u
#define LINE_US 10000000u
#define BAR_WIDTH 24

struct kx_progress {
	bool quiet;
	bool terminal;
	uint64_t last_us;
	pthread_mutex_t lock; /* of the line: any thread may log. Taken with the log's lock held, never the other way */
	char line[256];       /* what stands on the terminal */
};

static void wipe(void *ctx)
{
	struct kx_progress *progress = ctx;
	pthread_mutex_lock(&progress->lock);
	if (progress->line[0] != '\0')
		fputs("\r\033[K", stderr);
	pthread_mutex_unlock(&progress->lock);
}

static void put_line(const struct kx_progress *progress)
{
	if (progress->line[0] != '\0') {
		fprintf(stderr, "\r%s\033[K", progress->line);
		fflush(stderr);
	}
}

static void draw(void *ctx)
{
	struct kx_progress *progress = ctx;
	pthread_mutex_lock(&progress->lock);
	put_line(progress);
	pthread_mutex_unlock(&progress->lock);
}

kx_status kx_progress_new(bool quiet, struct kx_progress **ret, struct kx_error *error)
{
	struct kx_progress *progress = calloc(1, sizeof(*progress));
	if (progress == NULL)
		return kx_error_nomem(error);
	progress->quiet = quiet;
	progress->terminal = isatty(STDERR_FILENO);
	progress->last_us = kx_clock_mono_us();
	pthread_mutex_init(&progress->lock, NULL);
	if (progress->terminal)
		kx_log_set_hooks(wipe, draw, progress);
	*ret = progress;
	return KX_OK;
}

void kx_progress_free(struct kx_progress *progress)
{
	if (progress == NULL)
		return;
	if (progress->terminal) {
		kx_log_set_hooks(NULL, NULL, NULL);
		wipe(progress);
	}
	pthread_mutex_destroy(&progress->lock);
	free(progress);
}

static double speed(const struct kx_coordinator_progress *now)
{
	return now->elapsed_us > 0 ? (double)now->media_us / (double)now->elapsed_us : 0;
}

static void format_bar(const struct kx_coordinator_progress *now, char *out, size_t out_len)
{
	char bar[BAR_WIDTH + 1], media[32], eta[32] = "--";
	double share = now->media_total_us > 0 ? (double)now->media_us / (double)now->media_total_us : 0;
	int filled = share >= 1 ? BAR_WIDTH : (int)(share * BAR_WIDTH);
	memset(bar, '.', BAR_WIDTH);
	memset(bar, '#', (size_t)filled);
	bar[BAR_WIDTH] = '\0';
	kx_format_duration(now->media_us / 1000, media, sizeof(media));
	if (now->eta_us > 0)
		kx_format_duration(now->eta_us / 1000, eta, sizeof(eta));
	snprintf(out, out_len,
		 "[%s] %" PRIu64 "/%" PRIu64 "%s videos  %s of video  %.0fx  ETA %s  %" PRIu64 " quarantined",
		 bar, now->ended + now->unchanged, now->found, now->scanning ? "+" : "", media, speed(now), eta,
		 now->quarantined);
}

static void print_line(const struct kx_coordinator_progress *now)
{
	fprintf(stderr,
		"{\"ended\":%" PRIu64 ",\"found\":%" PRIu64 ",\"unchanged\":%" PRIu64 ",\"quarantined\":%" PRIu64
		",\"scanning\":%s,\"media_s\":%.1f,\"media_total_s\":%.1f,\"speed\":%.1f,\"eta_s\":%.0f}\n",
		now->ended, now->found, now->unchanged, now->quarantined, now->scanning ? "true" : "false",
		(double)now->media_us / 1e6, (double)now->media_total_us / 1e6, speed(now), (double)now->eta_us / 1e6);
}

void kx_progress_show(struct kx_progress *progress, const struct kx_coordinator_progress *now)
{
	uint64_t us = kx_clock_mono_us();
	uint64_t every = progress->terminal ? REDRAW_US : LINE_US;
	if (progress->quiet || us - progress->last_us < every)
		return;
	progress->last_us = us;
	if (progress->terminal) {
		pthread_mutex_lock(&progress->lock);
		format_bar(now, progress->line, sizeof(progress->line));
		put_line(progress);
		pthread_mutex_unlock(&progress->lock);
	} else {
		print_line(now);
	}
}
