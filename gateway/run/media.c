/* The videos' own bytes, and pictures of them. Only files that the store names are opened, and only regular ones. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/str.h"
#include "gateway/http/range.h"
#include "gateway/json/problem.h"
#include "gateway/run/internal.h"

/* KX_EEXIST: the response is there already, and is a problem of its own kind. */

#define WIDTH_DEFAULT 320u
#define WIDTH_MAX 1920u

struct source {
	int fd;
	struct stat st;
	char etag[64];
	const char *type;
	char *name; /* for messages */
	uint64_t duration_us;
	uint32_t width, height; /* as presented; 0: there is no picture */
};

static const char *type_of(const char *container, bool has_picture)
{
	static const struct {
		const char *container, *video, *audio;
	} types[] = {
		{"mp4", "video/mp4", "audio/mp4"},   {"mov", "video/quicktime", "audio/mp4"},
		{"webm", "video/webm", "audio/webm"}, {"matroska", "video/x-matroska", "audio/x-matroska"},
		{"avi", "video/x-msvideo", "audio/x-msvideo"}, {"mpegts", "video/mp2t", "video/mp2t"},
		{"mpeg", "video/mpeg", "audio/mpeg"}, {"ogg", "video/ogg", "audio/ogg"},
		{"mp3", "audio/mpeg", "audio/mpeg"},  {"wav", "audio/wav", "audio/wav"},
		{"flac", "audio/flac", "audio/flac"},
	};

	for (size_t i = 0; i < KX_ARRAY_LEN(types); i++)
		if (container != NULL && kx_str_starts(container, types[i].container))
			return has_picture ? types[i].video : types[i].audio;
	return "application/octet-stream";
}

/* Where the descriptor leads, links undone, and not where its path did. */
static bool is_below(int fd, const char *root)
{
	char link[64], path[4096];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t len = readlink(link, path, sizeof(path) - 1);
	if (len <= 0)
		return false;
	path[len] = '\0';
	return kx_str_starts(path, root) && (path[strlen(root)] == '/' || kx_str_ends(root, "/"));
}

static kx_status gone(struct kx_turn *turn, const char *why)
{
	return kx_error_set(&turn->error, KX_ENOTFOUND, KX_ERROR_POISON, "the file of \"%.200s\" is not to be had here: %s",
			    turn->id, why);
}

static kx_status open_path(struct kx_turn *turn, const char *path, struct source *source)
{
	const char *root = turn->gateway->options.media_root;

	if (path[0] != '/')
		return gone(turn, "its source is no file of this host");
	source->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (source->fd < 0)
		return gone(turn, errno == ENOENT ? "it is no longer there" : "it can't be opened");
	if (fstat(source->fd, &source->st) != 0 || !S_ISREG(source->st.st_mode))
		return gone(turn, "it is no regular file");
	return root == NULL || is_below(source->fd, root) ? KX_OK : gone(turn, "it lies outside --media-root");
}

static kx_status open_of(struct kx_turn *turn, const struct kx_video_record *video, struct source *source)
{
	const struct kx_video_info *info = &video->info;

	if (!turn->gateway->options.media)
		return kx_error_set(&turn->error, KX_EUNSUPPORTED, KX_ERROR_POISON, "this gateway serves no files");
	kx_status status = open_path(turn, info->source, source);
	if (status != KX_OK)
		return status;
	if ((uint64_t)source->st.st_size != info->content_bytes)
		return kx_error_set(&turn->error, KX_EEXIST, KX_ERROR_POISON,
				    "the file of \"%.200s\" is another than was indexed; index it again", turn->id);
	snprintf(source->etag, sizeof(source->etag), "\"%" PRIx64 "-%" PRIx64 ".%09" PRIx64 "-%" PRIx64 "\"",
		 (uint64_t)source->st.st_size, (uint64_t)source->st.st_mtim.tv_sec, (uint64_t)source->st.st_mtim.tv_nsec,
		 (uint64_t)source->st.st_ino);
	source->type = type_of(info->container, video->result.visual_us > 0 || info->width > 0);
	source->duration_us = video->result.duration_us;
	source->width = info->width;
	source->height = info->height;
	source->name = kx_strdup(video->result.video_id);
	return source->name != NULL ? KX_OK : kx_error_nomem(&turn->error);
}

static void close_source(struct source *source)
{
	if (source->fd >= 0)
		close(source->fd);
	free(source->name);
}

static kx_status open_source(struct kx_turn *turn, struct source *source)
{
	struct kx_answer answer = {0};
	kx_status status = kx_turn_video(turn, false, &answer);

	*source = (struct source){.fd = -1};
	if (status != KX_OK)
		return status;
	status = open_of(turn, answer.reply->video, source);
	kx_answer_done(&answer);
	if (status == KX_EEXIST) {
		kx_respond_problem(turn->response, 409, turn->error.message);
		return KX_EEXIST;
	}
	return status;
}

/* One of a list of tags, or *. Weak ones are as good here (RFC 9110, 13.1.2). */
static bool has_tag(const char *list, const char *etag)
{
	const char *at = list != NULL ? strstr(list, etag) : NULL;

	return list != NULL && (at != NULL || strcmp(list, "*") == 0);
}

static void tag(struct kx_turn *turn, const struct source *source)
{
	char modified[64];
	struct tm tm;

	kx_http_response_header(turn->response, "ETag", "%s", source->etag);
	if (gmtime_r(&source->st.st_mtim.tv_sec, &tm) != NULL &&
	    strftime(modified, sizeof(modified), "%a, %d %b %Y %H:%M:%S GMT", &tm) > 0)
		kx_http_response_header(turn->response, "Last-Modified", "%s", modified);
}

static void respond_file(struct kx_turn *turn, struct source *source)
{
	const struct kx_http_request *request = turn->request;
	struct kx_http_response *response = turn->response;
	uint64_t size = (uint64_t)source->st.st_size, first = 0, len = size;
	/* A range of another version is no use: then all of it. */
	bool whole = request->if_range != NULL && strcmp(request->if_range, source->etag) != 0;
	enum kx_range_kind kind = kx_http_range(whole ? NULL : request->range, size, &first, &len);

	if (kind == KX_RANGE_NONE) {
		kx_respond_problem(response, 416, "no byte of the file lies in that range");
		kx_http_response_header(response, "Content-Range", "bytes */%" PRIu64, size);
		return;
	}
	response->code = kind == KX_RANGE_PART ? 206 : 200;
	response->type = source->type;
	response->fd = kx_steal_fd(&source->fd);
	response->offset = first;
	response->len = len;
	kx_http_response_header(response, "Accept-Ranges", "bytes");
	if (kind == KX_RANGE_PART)
		kx_http_response_header(response, "Content-Range", "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, first,
					first + len - 1, size);
	tag(turn, source);
}

kx_status kx_serve_media(struct kx_turn *turn)
{
	static const char *const none[] = {NULL};
	struct source source = {.fd = -1};
	kx_status status = kx_turn_args(turn, none);

	if (status == KX_OK)
		status = open_source(turn, &source);
	if (status == KX_OK && has_tag(turn->request->if_none_match, source.etag)) {
		turn->response->code = 304;
		tag(turn, &source);
	} else if (status == KX_OK) {
		respond_file(turn, &source);
	}
	close_source(&source);
	return status == KX_EEXIST ? KX_OK : status;
}

/* Decoding takes long: so that others find a thread, half of them is the most that do. */
static bool may_decode(struct kx_gateway *gateway)
{
	unsigned most = gateway->options.threads > 1 ? gateway->options.threads / 2 : 1;

	if (atomic_fetch_add(&gateway->decoding, 1) < most)
		return true;
	atomic_fetch_sub(&gateway->decoding, 1);
	return false;
}

static kx_status make_picture(struct kx_turn *turn, int fd, const struct kx_picture_request *request)
{
	struct kx_gateway *gateway = turn->gateway;
	const struct kx_backend *backend = &gateway->options.backend;

	if (!may_decode(gateway))
		return kx_error_set(&turn->error, KX_EBUSY, KX_ERROR_RETRY, "as many thumbnails are being made as may");
	kx_status status = backend->picture(backend->ctx, fd, request, &turn->response->body, &turn->error);
	atomic_fetch_sub(&gateway->decoding, 1);
	if (status == KX_EUNSUPPORTED || status == KX_ECORRUPT) {
		/* The video is what can't be used, not the request. */
		kx_respond_problem(turn->response, 422, turn->error.message);
		return KX_EEXIST;
	}
	if (status == KX_OK)
		atomic_fetch_add(&gateway->metrics.thumbnails_made, 1);
	return status;
}

static kx_status picture(struct kx_turn *turn, const struct source *source, struct kx_picture_request *request)
{
	struct kx_gateway *gateway = turn->gateway;
	KX_CLEANUP(kx_cleanup_free) char *key =
		kx_strf("%" PRIu64 " %" PRIu32 " %s %s", request->at_us, request->width, source->etag, source->name);

	if (key == NULL)
		return kx_error_nomem(&turn->error);
	kx_status status = kx_cache_lru_get(gateway->thumbnails, key, &turn->response->body);
	if (status == KX_OK) {
		atomic_fetch_add(&gateway->metrics.thumbnails_kept, 1);
	} else {
		status = make_picture(turn, source->fd, request);
		if (status == KX_OK)
			kx_cache_lru_put(gateway->thumbnails, key, turn->response->body.data, turn->response->body.len);
	}
	if (status != KX_OK)
		return status;
	turn->response->code = 200;
	turn->response->type = "image/png";
	kx_http_response_header(turn->response, "Cache-Control", "private, max-age=3600");
	return KX_OK;
}

/* The size in the video's aspect, no larger than the video is. */
static kx_status fit(struct kx_turn *turn, const struct source *source, struct kx_picture_request *request)
{
	if (source->width == 0 || source->height == 0) {
		kx_respond_problem(turn->response, 422, "the video has no picture");
		return KX_EEXIST;
	}
	if (request->at_us > 0 && request->at_us >= source->duration_us)
		return kx_error_set(&turn->error, KX_EINVAL, KX_ERROR_POISON, "t: the video is only %.3f s long",
				    (double)source->duration_us / 1e6);
	if (request->width > source->width)
		request->width = source->width;
	uint64_t height = ((uint64_t)request->width * source->height + source->width / 2) / source->width;
	request->height = height < 1 ? 1 : height > KX_FRAME_SIDE_MAX ? KX_FRAME_SIDE_MAX : (uint32_t)height;
	return KX_OK;
}

/* t=SECONDS; within the video. */
static kx_status read_time(struct kx_turn *turn, uint64_t *ret_us)
{
	const char *text = kx_http_target_arg(&turn->request->target, "t");
	double seconds = 0;

	if (text != NULL && (kx_parse_double(text, &seconds) != KX_OK || seconds < 0 || seconds > 1e9))
		return kx_error_set(&turn->error, KX_EINVAL, KX_ERROR_POISON, "t: must be seconds from the start");
	*ret_us = (uint64_t)llround(seconds * 1e6);
	return KX_OK;
}

kx_status kx_serve_thumbnail(struct kx_turn *turn)
{
	static const char *const names[] = {"t", "w", NULL};
	struct source source = {.fd = -1};
	struct kx_picture_request request = {
		.name = turn->id, .width = WIDTH_DEFAULT, .deadline_us = turn->request->deadline_us};
	kx_status status = kx_turn_args(turn, names);

	if (status == KX_OK)
		status = read_time(turn, &request.at_us);
	if (status == KX_OK)
		status = kx_turn_u32(turn, "w", 1, WIDTH_MAX, &request.width);
	if (status == KX_OK && turn->gateway->options.backend.picture == NULL)
		status = kx_error_set(&turn->error, KX_EUNSUPPORTED, KX_ERROR_POISON, "this gateway makes no thumbnails");
	if (status == KX_OK)
		status = open_source(turn, &source);
	if (status == KX_OK)
		status = fit(turn, &source, &request);
	if (status == KX_OK)
		status = picture(turn, &source, &request);
	close_source(&source);
	return status == KX_EEXIST ? KX_OK : status;
}
