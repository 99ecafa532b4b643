"""Writes video files of the kinds that are read wrongly where timestamps and flags are taken at their word."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from video_files import write_video

QUIET_HEVC = {"x265-params": "log-level=none:pools=none:frame-threads=1:keyint=15:bframes=3"}
LARGE = (160, 640)
"""of pictures that make up most of a file"""

X264_B = {"bf": "3", "x264-params": "scenecut=0"}


def remuxed(source: Path, target: Path, *, begin: float = 0, as_decoded: bool = False, **options: str) -> Path:
    """The packets of a file in another container, from the key frame at or before `begin` seconds on, which is time 0.

    `as_decoded` takes times of decoding for those of display, as a copy from AVI does.
    """
    with av.open(str(source)) as read, av.open(str(target), "w", container_options=options) as write:
        stream = read.streams.video[0]
        copy = write.add_stream_from_template(stream)
        zero = round(begin / stream.time_base)
        if begin:
            read.seek(zero, stream=stream)
        for packet in read.demux(stream):
            if not packet.size:
                continue
            if as_decoded:
                packet.pts = packet.dts
            packet.pts, packet.dts = packet.pts - zero, packet.dts - zero
            packet.stream = copy
            write.mux(packet)
    return target


def with_sound(source: Path, target: Path, *, codec: str, seconds: int, late: int = 0) -> Path:
    """The packets of a file, which start `late` seconds late, with so many seconds of silence."""
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        stream = read.streams.video[0]
        copy = write.add_stream_from_template(stream)
        sound = write.add_stream(codec, rate=48000, layout="mono")
        for second in range(seconds):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48000, second * 48000, Fraction(1, 48000)
            write.mux(sound.encode(frame))
        write.mux(sound.encode())
        shift = round(late / stream.time_base)
        for packet in read.demux(stream):
            if packet.size:
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = copy
                write.mux(packet)
    return target


def without_packets(source: Path, target: Path, every: int) -> Path:
    """A transport stream that lost one of so many of its packets of 188 bytes."""
    whole = source.read_bytes()
    parts = [whole[at : at + 188] for at in range(0, len(whole), 188)]
    target.write_bytes(b"".join(part for place, part in enumerate(parts) if place < 3 or place % every != every // 2))
    return target


def bytes_of(source: Path, target: Path, begin: float, end: float) -> Path:
    """The bytes of a file between two shares of it, the first two packets of a transport stream before them."""
    whole = source.read_bytes()
    first = int(len(whole) * begin) // 188 * 188
    target.write_bytes((whole[:376] if first else b"") + whole[first : int(len(whole) * end)])
    return target


def zeroed(source: Path, target: Path, *places: float) -> Path:
    """A file with forty bytes of zeros at these shares of it."""
    content = bytearray(source.read_bytes())
    for place in places:
        begin = int(len(content) * place)
        content[begin : begin + 40] = bytes(40)
    target.write_bytes(content)
    return target


def _without(source: Path, target: Path, lost: int) -> Path:
    """The packets of a file but one."""
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        copy = write.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(read.demux(read.streams.video[0])):
            if packet.size and number != lost:
                packet.stream = copy
                write.mux(packet)
    return target


def _joined(folder: Path) -> Path:
    first = write_video(folder / "1.ts", frames=30, options=X264_B)
    second = write_video(folder / "2.ts", frames=25, options=X264_B, size=(64, 160))
    (folder / "a.ts").write_bytes(first.read_bytes() + second.read_bytes())
    return folder / "a.ts"


def _remuxed_avi(folder: Path, codec: str, name: str) -> Path:
    source = write_video(folder / "b.avi", codec=codec, options={"bf": "3"} if codec == "libx264" else {"bf": "2"})
    return remuxed(source, folder / name, as_decoded=True)


def _trimmed(folder: Path, name: str, codec: str = "libx264", **options: str) -> Path:
    encoding = QUIET_HEVC if codec == "libx265" else X264_B
    source = write_video(folder / "whole.mp4", frames=80, codec=codec, options=encoding, gop=30)
    return remuxed(source, folder / name, begin=1.6, **options)


def _cut(folder: Path, name: str, codec: str, **options: str) -> Path:
    whole = folder / f"whole{Path(name).suffix}"
    write_video(whole, frames=60, codec=codec, container_options=options, gop=20, size=LARGE)
    return bytes_of(whole, folder / name, 0, 0.6)


def _video(name: str, **how: object) -> Callable[[Path], Path]:
    return lambda folder: write_video(folder / name, **({"frames": 50, "gop": 12} | how))  # type: ignore[arg-type]


_VFR = [*range(20), *range(20, 100, 4)]

ODD: dict[str, Callable[[Path], Path]] = {
    "H.264 of an AVI in mp4": lambda folder: _remuxed_avi(folder, "libx264", "a.mp4"),
    "H.264 of an AVI in mov": lambda folder: _remuxed_avi(folder, "libx264", "a.mov"),
    "MPEG-4 of an AVI in mp4": lambda folder: _remuxed_avi(folder, "mpeg4", "a.mp4"),
    "MPEG-2 of an AVI in mkv": lambda folder: _remuxed_avi(folder, "mpeg2video", "a.mkv"),
    "MPEG-4 with B pictures in avi": _video("a.avi", codec="mpeg4", options={"bf": "2"}),
    "MPEG-4 without in avi": _video("a.avi", codec="mpeg4", options={"bf": "0"}),
    "H.264 in asf": lambda folder: remuxed(write_video(folder / "b.mp4", options=X264_B), folder / "a.asf"),
    "trimmed mp4": lambda folder: _trimmed(folder, "a.mp4"),
    "trimmed mov": lambda folder: _trimmed(folder, "a.mov"),
    "trimmed mkv": lambda folder: _trimmed(folder, "a.mkv"),
    "trimmed mkv, negative times": lambda folder: _trimmed(folder, "a.mkv", avoid_negative_ts="disabled"),
    "trimmed HEVC": lambda folder: _trimmed(folder, "a.mp4", codec="libx265"),
    "start in mid-group": lambda folder: bytes_of(
        write_video(folder / "b.ts", frames=90, options=X264_B, gop=30), folder / "a.ts", 0.2, 1
    ),
    "joined transport streams": _joined,
    "lost packets": lambda folder: without_packets(
        write_video(folder / "b.ts", frames=90, options=X264_B, size=(96, 160)), folder / "a.ts", 25
    ),
    "intra refresh": _video("a.mp4", options={"x264-params": "intra-refresh=1:keyint=15:bframes=0"}),
    "open groups": _video("a.mkv", options={"x264-params": "open-gop=1:keyint=12:bframes=3:scenecut=0"}),
    "open groups of HEVC": _video("a.mp4", codec="libx265", options=QUIET_HEVC),
    "fields": _video("a.mkv", options={"flags": "+ildct+ilme", "x264-params": "tff=1"}, size=(64, 160)),
    "fields of MPEG-2": _video("a.ts", codec="mpeg2video", options={"flags": "+ildct+ilme", "bf": "2"}),
    "hidden VP9": _video("a.webm", codec="libvpx-vp9", options={"auto-alt-ref": "1", "lag-in-frames": "10"}),
    "hidden VP8": _video("a.webm", codec="libvpx", options={"auto-alt-ref": "1", "lag-in-frames": "10"}),
    "AV1": _video("a.mkv", codec="libsvtav1", options={"preset": "12"}, size=(64, 160)),
    "cut avi": lambda folder: _cut(folder, "a.avi", "mpeg4"),
    "cut flv": lambda folder: _cut(folder, "a.flv", "libx264"),
    "cut mkv": lambda folder: _cut(folder, "a.mkv", "libx264"),
    "cut mp4": lambda folder: _cut(folder, "a.mp4", "libx264", movflags="faststart"),
    "cut fragments": lambda folder: _cut(folder, "a.mp4", "libx264", movflags="frag_keyframe+empty_moov"),
    "cut ts": lambda folder: _cut(folder, "a.ts", "libx264"),
    "longer sound in webm": lambda folder: with_sound(
        write_video(folder / "b.webm", codec="libvpx"), folder / "a.webm", codec="libopus", seconds=6
    ),
    "longer sound in mkv": lambda folder: with_sound(
        write_video(folder / "b.mp4", options=X264_B), folder / "a.mkv", codec="aac", seconds=6
    ),
    "longer sound in flv": lambda folder: with_sound(
        write_video(folder / "b.flv", codec="flv"), folder / "a.flv", codec="aac", seconds=6
    ),
    "late start in mkv": lambda folder: with_sound(
        write_video(folder / "b.mp4", options=X264_B), folder / "a.mkv", codec="aac", seconds=6, late=3
    ),
    "late start in mp4": lambda folder: with_sound(
        write_video(folder / "b.mp4", options=X264_B), folder / "a.mp4", codec="aac", seconds=6, late=3
    ),
    "missing frames": _video("a.mp4", frames=46, times=[i for i in range(50) if i % 14 != 9]),
    "varying rate": _video("a.mkv", frames=40, times=_VFR),
    "varying rate in ts": _video("a.ts", frames=40, times=_VFR),
    "zeros in mp4": lambda folder: zeroed(
        write_video(folder / "b.mp4", gop=10, size=LARGE), folder / "a.mp4", 0.4, 0.6
    ),
    "zeros in flv": lambda folder: zeroed(
        write_video(folder / "b.flv", gop=10, size=LARGE), folder / "a.flv", 0.4, 0.6
    ),
    "varying rate in avi": _video("a.avi", codec="mpeg4", options={"bf": "0"}, frames=40, times=_VFR),
    "dropped frames in avi, B pictures": _video("a.avi", options=X264_B, frames=40, times=_VFR),
    "program stream": _video("a.mpg", codec="mpeg2video", options={"bf": "2"}),
    "clock that turns over": _video("a.ts", options=X264_B, container_options={"output_ts_offset": "95442.5"}),
    "cut fragments of a frame": lambda folder: _cut(folder, "a.mp4", "libx264", movflags="frag_every_frame+empty_moov"),
    "trimmed HEVC in ts": lambda folder: _trimmed(folder, "a.ts", codec="libx265"),
    "lost key frame": lambda folder: _without(
        write_video(folder / "b.mp4", options=X264_B, frames=60, gop=20), folder / "a.mkv", 20
    ),
    "wmv": _video("a.wmv", codec="wmv2"),
    "apng": _video("a.apng", codec="apng", pix_fmt="rgb24", frames=20),
    "gif": _video("a.gif", codec="gif", pix_fmt="rgb8", frames=20),
}
"""file by kind, written into a folder of its own"""
