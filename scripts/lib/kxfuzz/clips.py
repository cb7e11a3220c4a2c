"""Files to damage: a short one of every container and codec that is read, made by ffmpeg, and excerpts of the sample
clips. And the seeds of tests/fuzz/corpus/media: the made ones again, smaller.

    python3 -m kxfuzz.clips bases OUT SAMPLES      for scripts/fuzz mutate; does nothing when they are there
    python3 -m kxfuzz.clips seeds OUT

Only what ffmpeg draws goes into the repository, never anybody's clip.
"""
import hashlib
import subprocess
import sys
from pathlib import Path

X264 = "-c:v libx264 -preset ultrafast -bf 2 -g 12 -pix_fmt yuv420p"
AAC = "-c:a aac -b:a 48k"
MPEG2 = "-c:v mpeg2video -g 12 -bf 2 -q:v 6"

# name: (pictures, sound, what comes between the inputs and the output). {s} is the size of the picture.
MADE = {
    "h264-aac.mp4": (1, 1, f"{X264} {AAC} -movflags +faststart"),
    "h264-late-moov.mp4": (1, 0, X264),
    "h264-rotated-editlist.mp4": (1, 1, f"{X264} {AAC} -ss 0.2 -metadata:s:v rotate=90"),
    "h264-10bit.mp4": (1, 0, f"{X264} -pix_fmt yuv420p10le"),
    "fragmented.mov": (1, 1, f"{X264} {AAC} -movflags frag_keyframe+empty_moov+default_base_moof"),
    "mjpeg-pcm.mov": (1, 1, "-c:v mjpeg -q:v 9 -c:a pcm_s16be"),
    "prores.mov": (1, 0, "-c:v prores_ks -profile:v 0 -frames:v 6"),
    "rle-alac.mov": (1, 1, "-c:v qtrle -frames:v 6 -c:a alac"),
    "hevc.mp4": (1, 0, "-c:v libx265 -preset ultrafast -x265-params log-level=none:pools=none:frame-threads=1 -g 12 -tag:v hvc1"),
    "mpeg4.mp4": (1, 1, f"-c:v mpeg4 -g 12 -bf 2 -q:v 8 {AAC}"),
    "av1.mp4": (1, 0, "-c:v libaom-av1 -cpu-used 8 -usage realtime -g 12 -frames:v 12"),
    "audio.m4a": (0, 1, AAC),
    "h264-opus.mkv": (1, 1, f"{X264} -c:a libopus -b:a 48k"),
    "hevc-flac.mkv": (1, 1, "-c:v libx265 -preset ultrafast -x265-params log-level=none:pools=none:frame-threads=1 -g 12 -c:a flac"),
    "ffv1-pcm.mkv": (1, 1, "-c:v ffv1 -frames:v 5 -c:a pcm_f32le"),
    "vp9-opus.webm": (1, 1, "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 12 -c:a libopus -b:a 48k"),
    "vp8-vorbis.webm": (1, 1, "-c:v libvpx -deadline realtime -cpu-used 8 -g 12 -b:v 200k -c:a libvorbis -q:a 1"),
    "mpeg4-mp3.avi": (1, 1, "-c:v mpeg4 -vtag XVID -g 12 -bf 1 -q:v 8 -c:a libmp3lame -b:a 64k"),
    "msmpeg4-adpcm.avi": (1, 1, "-c:v msmpeg4v2 -g 12 -q:v 8 -c:a adpcm_ms"),
    "huffyuv.avi": (1, 0, "-c:v huffyuv -frames:v 4"),
    "cinepak.avi": (1, 0, "-c:v cinepak -frames:v 4"),
    "raw.avi": (1, 0, "-c:v rawvideo -pix_fmt bgr24 -frames:v 2"),
    "h264-aac.ts": (1, 1, f"{X264} {AAC}"),
    "mpeg2-mp2.ts": (1, 1, f"{MPEG2} -c:a mp2 -b:a 64k"),
    "hevc-ac3.ts": (1, 1, "-c:v libx265 -preset ultrafast -x265-params log-level=none:pools=none:frame-threads=1 -g 12 -c:a ac3 -b:a 96k"),
    "mpeg1-mp2.mpg": (1, 1, "-c:v mpeg1video -g 12 -bf 2 -q:v 6 -c:a mp2 -b:a 64k"),
    "mpeg2-interlaced.mpg": (1, 0, f"{MPEG2} -flags +ilme+ildct -f vob"),
    "h264-aac.flv": (1, 1, f"{X264} {AAC}"),
    "sorenson-mp3.flv": (1, 1, "-c:v flv -g 12 -q:v 8 -ar 22050 -c:a libmp3lame -b:a 32k"),
    "theora-vorbis.ogg": (1, 1, "-c:v libtheora -g 12 -q:v 3 -c:a libvorbis -q:a 1"),
    "opus.ogg": (0, 1, "-c:a libopus -b:a 32k"),
    "wmv2-wma.asf": (1, 1, "-c:v wmv2 -g 12 -q:v 8 -c:a wmav2 -b:a 48k"),
    "mpeg2-pcm.mxf": (1, 1, f"{MPEG2} -ar 48000 -c:a pcm_s16le"),
    "raw.h264": (1, 0, f"{X264} -f h264"),
    "raw.hevc": (1, 0, "-c:v libx265 -preset ultrafast -x265-params log-level=none:pools=none:frame-threads=1 -g 12 -f hevc"),
    "raw.m4v": (1, 0, "-c:v mpeg4 -g 12 -bf 2 -q:v 8 -f m4v"),
    "raw.m2v": (1, 0, f"{MPEG2} -f mpeg2video"),
    "vp9.ivf": (1, 0, "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 12"),
    "raw.obu": (1, 0, "-c:v libaom-av1 -cpu-used 8 -usage realtime -g 12 -frames:v 12 -f obu"),
    "raw.y4m": (1, 0, "-pix_fmt yuv422p -frames:v 2"),
    "sound.wav": (0, 1, "-ac 2 -c:a pcm_s24le"),
    "sound.w64": (0, 1, "-c:a adpcm_ima_wav"),
    "sound.mp3": (0, 1, "-c:a libmp3lame -b:a 48k"),
    "sound.flac": (0, 1, "-c:a flac"),
    "sound.aac": (0, 1, f"{AAC} -f adts"),
    "sound.ac3": (0, 1, "-ac 6 -c:a ac3 -b:a 128k"),
    "sound.eac3": (0, 1, "-c:a eac3 -b:a 96k"),
    "sound.aiff": (0, 1, "-c:a pcm_s16be"),
    "sound.au": (0, 1, "-c:a pcm_mulaw"),
    "sound.caf": (0, 1, "-c:a pcm_f32le"),
}
# Of the seeds only these: small ones, of every container and of the codecs that are planned for.
SEEDS = (
    "h264-aac.mp4", "h264-rotated-editlist.mp4", "fragmented.mov", "rle-alac.mov", "hevc.mp4", "mpeg4.mp4", "av1.mp4",
    "h264-opus.mkv", "vp9-opus.webm", "vp8-vorbis.webm", "mpeg4-mp3.avi", "h264-aac.ts", "mpeg2-mp2.ts", "mpeg1-mp2.mpg",
    "sorenson-mp3.flv", "theora-vorbis.ogg", "wmv2-wma.asf", "raw.h264", "raw.hevc", "raw.m4v", "raw.m2v", "vp9.ivf",
    "raw.obu", "sound.wav", "sound.mp3", "sound.flac", "sound.aac", "sound.ac3", "sound.caf",
)
# Where an excerpt of a sample starts, in seconds, and how long it is.
EXCERPT = ("0.5", "1.5")


def ffmpeg(*args):
    """What it says is only of interest when it fails: muxers grumble about odd combinations."""
    done = subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", *args], stderr=subprocess.PIPE, timeout=120)
    if done.returncode:
        sys.stderr.write(done.stderr.decode(errors="replace"))
        raise subprocess.CalledProcessError(done.returncode, done.args)


def make(path, name, size, seconds, rate=44100):
    picture, sound, coding = MADE[name]
    args = []
    if picture:
        args += ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate=25:duration={seconds}"]
    if sound:
        args += ["-f", "lavfi", "-i", f"aevalsrc=0.4*sin(2*PI*t*(300+400*t)):s={rate}:d={seconds}"]
    # One thread, no dates, no version numbers: the same file each time that the same ffmpeg makes it.
    ffmpeg(*args, "-threads", "1", "-fflags", "+bitexact", "-flags", "+bitexact", *coding.split(), str(path))


def excerpt(path, sample):
    try:
        ffmpeg("-ss", EXCERPT[0], "-i", str(sample), "-t", EXCERPT[1], "-map", "0:v?", "-map", "0:a?", "-c", "copy",
               "-fflags", "+bitexact", str(path))
    except subprocess.CalledProcessError:
        path.unlink(missing_ok=True)
        print(f"{sample.name}: no excerpt can be cut out of it as it is; left out", file=sys.stderr)


def bases(out, samples):
    clips = sorted(p for p in samples.iterdir() if p.suffix in (".mp4", ".avi", ".mpg", ".mkv", ".webm", ".wav"))
    recipe = hashlib.sha256(repr((MADE, EXCERPT, [(p.name, p.stat().st_size) for p in clips])).encode()).hexdigest()
    mark = out / ".recipe"
    if mark.exists() and mark.read_text() == recipe:
        return
    out.mkdir(parents=True, exist_ok=True)
    for old in out.iterdir():
        old.unlink()
    for name in MADE:
        make(out / name, name, "160x120", 1.5)
    for clip in clips:
        excerpt(out / f"sample-{clip.name}", clip)
    mark.write_text(recipe)


def seeds(out):
    out.mkdir(parents=True, exist_ok=True)
    for name in SEEDS:
        make(out / name, name, "32x32", 0.4, rate=32000 if name.endswith((".ac3", ".ts")) else 16000)


def main():
    if len(sys.argv) == 4 and sys.argv[1] == "bases":
        bases(Path(sys.argv[2]), Path(sys.argv[3]))
    elif len(sys.argv) == 3 and sys.argv[1] == "seeds":
        seeds(Path(sys.argv[2]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
