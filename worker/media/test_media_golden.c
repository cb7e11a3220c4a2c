/* Frames and sound against an independent path: the ffmpeg tool decoding everything, its scaler in accurate mode
 * with an area filter, its resampler. Prints what it measured. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/fs.h"
#include "worker/media/logmel.h"
#include "worker/media/testkit.h"

#define SIDE 224
#define FRAME_BYTES ((size_t)SIDE * SIDE * 3)
#define PSNR_MIN 45.0
#define LOGMEL_RMS_MAX 0.05

struct golden {
	const char *name;
	const char *arguments;
	int rate;          /* frames a second in the file: frame k of the sample is number k * rate */
	const char *scale; /* options of the reference's scale filter for its input */
};

static const struct golden goldens[] = {
	{"sd.mp4", "-f lavfi -i mandelbrot=size=640x360:rate=25:end_scale=0.05 -t 6 -c:v libx264 -preset veryfast "
		   "-pix_fmt yuv420p -bf 3", 25, "in_color_matrix=bt601"},
	{"hd.mp4", "-f lavfi -i mandelbrot=size=1280x720:rate=25:end_scale=0.05 -t 3 -c:v libx264 -preset ultrafast "
		   "-pix_fmt yuv420p", 25, "in_color_matrix=bt709"},
	{"tagged601-hd.mp4", "-f lavfi -i testsrc2=size=1280x720:rate=25 -t 3 -c:v libx264 -preset ultrafast "
			     "-pix_fmt yuv420p -colorspace smpte170m", 25, "in_color_matrix=bt601"},
	{"fullrange.mp4", "-f lavfi -i testsrc2=size=640x360:rate=25 -t 3 -vf scale=out_range=full -c:v libx264 "
			  "-preset ultrafast -pix_fmt yuvj420p -color_range pc", 25,
	 "in_color_matrix=bt601:in_range=full"},
	{"tenbit.mkv", "-f lavfi -i mandelbrot=size=640x360:rate=25:end_scale=0.05 -t 3 -c:v libx264 -preset ultrafast "
		       "-pix_fmt yuv420p10le", 25, "in_color_matrix=bt601"},
	{"yuv444.mkv", "-f lavfi -i testsrc2=size=322x182:rate=25 -t 3 -c:v libx264 -preset ultrafast -pix_fmt yuv444p",
	 25, "in_color_matrix=bt601"},
	{"odd.mkv", "-f lavfi -i testsrc2=size=321x181:rate=25 -t 3 -c:v ffv1 -pix_fmt yuv420p", 25,
	 "in_color_matrix=bt601"},
	{"small.mp4", "-f lavfi -i testsrc2=size=96x64:rate=25 -t 3 -c:v libx264 -preset ultrafast -pix_fmt yuv420p",
	 25, "in_color_matrix=bt601"},
	{"mpeg2.ts", "-f lavfi -i mandelbrot=size=720x576:rate=25:end_scale=0.05 -t 3 -c:v mpeg2video -q:v 2 -bf 2", 25,
	 "in_color_matrix=bt601"},
	{"vp9.webm", "-f lavfi -i mandelbrot=size=320x240:rate=25:end_scale=0.05 -t 3 -c:v libvpx-vp9 "
		     "-deadline realtime -cpu-used 8", 25, "in_color_matrix=bt601"},
};

static double psnr(const uint8_t *a, const uint8_t *b, size_t len)
{
	double sum = 0;
	for (size_t i = 0; i < len; i++) {
		double d = (double)a[i] - b[i];
		sum += d * d;
	}
	return sum > 0 ? 10 * log10(255.0 * 255.0 * (double)len / sum) : 99;
}

static void reference_frames(const char *path, const char *filter, struct kx_buf *ret)
{
	const char *raw = kit_path("reference.rgb");
	kit_shell("ffmpeg -nostdin -v error -y -i '%s' -map 0:v:0 -vf \"%s\" -vsync passthrough -pix_fmt rgb24 "
		  "-f rawvideo '%s'", path, filter, raw);
	assert_int_equal(kx_fs_read(raw, 1 << 30, ret, NULL), KX_OK);
	assert_true(ret->len > 0 && ret->len % FRAME_BYTES == 0);
}

static void check_golden(const struct golden *golden)
{
	char filter[512];
	struct kx_buf reference = {0};
	struct kit_run run;
	double worst = 99;
	uint64_t worst_time = 0;
	const char *path = kit_clip(golden->name, golden->arguments);
	snprintf(filter, sizeof(filter),
		 "select='not(mod(n,%d))',scale=%d:%d:flags=area+accurate_rnd+full_chroma_int+full_chroma_inp:%s",
		 golden->rate, SIDE, SIDE, golden->scale);
	reference_frames(path, filter, &reference);
	kit_sample(path, (struct kit_want){.keep_bytes = true}, &run);
	assert_int_equal(run.status, KX_OK);
	assert_int_equal(run.frame_count, reference.len / FRAME_BYTES);
	for (size_t i = 0; i < run.frame_count; i++) {
		worst = fmin(worst, psnr(run.frames[i].bytes, reference.data + i * FRAME_BYTES, FRAME_BYTES));
		if (run.frames[i].sample.error_us > worst_time)
			worst_time = run.frames[i].sample.error_us;
	}
	printf("%-18s %zu frames: PSNR at least %.1f dB (wanted %.1f), time off by at most %llu us\n", golden->name,
	       run.frame_count, worst, PSNR_MIN, (unsigned long long)worst_time);
	assert_true(worst >= PSNR_MIN);
	/* Whole seconds fall on frames; Matroska rounds to a millisecond. */
	assert_true(worst_time <= 1000);
	kit_done(&run);
	kx_buf_done(&reference);
}

static void test_frames(void **state)
{
	(void)state;
	for (size_t i = 0; i < KX_ARRAY_LEN(goldens); i++)
		check_golden(&goldens[i]);
}

/* The eight ways a picture can lie in a file are turned as ffmpeg turns them. */
static void test_rotation(void **state)
{
	(void)state;
	const char *plain = kit_clip("upright.mp4", "-f lavfi -i testsrc2=size=320x180:rate=25 -t 2 -c:v libx264 "
						    "-preset ultrafast -pix_fmt yuv420p");
	const int angles[] = {90, 180, 270};
	for (size_t i = 0; i < KX_ARRAY_LEN(angles); i++) {
		char arguments[1024];
		struct kx_buf reference = {0};
		struct kit_run run;
		snprintf(arguments, sizeof(arguments), "-i '%s' -c copy -metadata:s:v:0 rotate=%d", plain, angles[i]);
		const char *path = kit_clip("turned.mp4", arguments);
		reference_frames(path, "select='not(mod(n,25))',scale=224:224:flags=area+accurate_rnd+full_chroma_int:"
				       "in_color_matrix=bt601", &reference);
		kit_sample(path, (struct kit_want){.keep_bytes = true}, &run);
		assert_int_equal(run.status, KX_OK);
		assert_int_equal(run.info.width, angles[i] == 180 ? 320 : 180);
		assert_int_equal(run.frame_count, 2);
		double got = psnr(run.frames[1].bytes, reference.data + FRAME_BYTES, FRAME_BYTES);
		printf("turned by %d: PSNR %.1f dB\n", angles[i], got);
		/* ffmpeg turns the subsampled chroma before it scales: not quite the same. */
		assert_true(got > 30);
		kit_done(&run);
		kx_buf_done(&reference);
	}
}

struct patches {
	size_t count;
	double sum;
	const struct kit_run *run;
};

static kx_status compare_patch(void *ctx, uint64_t index, const float *patch)
{
	struct patches *patches = ctx;
	if (index >= patches->run->patch_count)
		return KX_OK;
	const float *ours = (const void *)patches->run->patches[index].bytes;
	for (size_t i = 0; i < KX_PATCH_HOPS * KX_PATCH_BANDS; i++)
		patches->sum += ((double)patch[i] - ours[i]) * ((double)patch[i] - ours[i]);
	patches->count++;
	return KX_OK;
}

static void check_sound(const char *name, const char *arguments)
{
	struct kit_run run;
	struct kx_buf pcm = {0};
	struct kx_logmel *logmel = NULL;
	const char *path = kit_clip(name, arguments);
	const char *raw = kit_path("reference.f32");
	kit_shell("ffmpeg -nostdin -v error -y -i '%s' -vn -af 'aresample=16000:rematrix_maxval=1.0:ochl=mono' "
		  "-f f32le '%s'", path, raw);
	assert_int_equal(kx_fs_read(raw, 1 << 28, &pcm, NULL), KX_OK);
	kit_sample(path, (struct kit_want){.tracks = KX_TRACK_AUDIO, .keep_bytes = true}, &run);
	assert_int_equal(run.status, KX_OK);
	struct patches patches = {.run = &run};
	assert_int_equal(kx_logmel_new(compare_patch, &patches, &logmel), KX_OK);
	assert_int_equal(kx_logmel_push(logmel, (const void *)pcm.data, pcm.len / sizeof(float)), KX_OK);
	double rms = sqrt(patches.sum / ((double)patches.count * KX_PATCH_HOPS * KX_PATCH_BANDS));
	printf("%-18s %zu patches: log-mel RMS difference %.4f (allowed %.2f)\n", name, run.patch_count, rms,
	       LOGMEL_RMS_MAX);
	assert_true(run.patch_count > 10 && patches.count + 1 >= run.patch_count);
	assert_true(rms < LOGMEL_RMS_MAX);
	kx_logmel_free(logmel);
	kx_buf_done(&pcm);
	kit_done(&run);
}

static void test_sound(void **state)
{
	(void)state;
#define SOUND "-f lavfi -i \"aevalsrc='0.4*sin(2*PI*(200+100*t)*t)+0.1*random(0)'"
	check_sound("stereo.m4a", SOUND ":s=44100:d=8\" -ac 2 -c:a aac -b:a 160k");
	check_sound("mono.wav", SOUND ":s=16000:d=8\" -c:a pcm_s16le");
	check_sound("rate.wav", SOUND ":s=11025:d=8\" -c:a pcm_u8");
	check_sound("surround.ac3", SOUND ":s=48000:d=8\" -ac 6 -c:a ac3");
	check_sound("music.mp3", SOUND ":s=44100:d=8\" -c:a libmp3lame");
	check_sound("music.flac", SOUND ":s=96000:d=8\" -c:a flac");
	check_sound("low.wav", SOUND ":s=8000:d=8\" -ac 1 -c:a pcm_s16le");
	check_sound("quad.wav", SOUND ":s=44100:d=8\" -ac 4 -c:a pcm_s24le");
	check_sound("seven.wav", SOUND ":s=48000:d=8\" -ac 8 -c:a pcm_s16le");
	check_sound("high.flac", SOUND ":s=192000:d=8\" -ac 2 -c:a flac");
	check_sound("voice.opus.ogg", SOUND ":s=48000:d=8\" -c:a libopus");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames),
		cmocka_unit_test(test_rotation),
		cmocka_unit_test(test_sound),
	};
	return cmocka_run_group_tests(tests, kit_enter, kit_leave);
}
