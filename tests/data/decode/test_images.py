from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from video_files import number_of, numbered, shared

from layerlock.data.decode.images import holds_frames, probe, read_clips, read_depth, read_whole
from layerlock.data.decode.video import Cut, UnreadableVideo

SIZE = (32, 160)
"""height and width of the numbered pictures"""


def write_frames(folder: Path, names: Sequence[str]) -> Path:
    """Pictures that carry their place in `names`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.fromarray(numbered(number)).save(
            folder / name, **({} if name.lower().endswith("png") else {"quality": 95})
        )
    return folder


def write_depth(path: Path, map_hw: np.ndarray) -> None:
    """A 16-bit grayscale PNG, made of bytes alone."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = map_hw.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in map_hw)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def write_pairs(folder: Path, frames: int, size: tuple[int, int] = SIZE) -> Path:
    """Colour and depth: all of frame i is i + 1 metres away."""
    write_frames(folder, [f"frame-{i}.color.jpg" for i in range(frames)])
    for i in range(frames):
        write_depth(folder / f"frame-{i}.depth.png", np.full(size, 1000 * (i + 1), np.uint16))
    return folder


def numbers(folder: Path, start: int, frames: int = 4, stride: int = 2) -> list[int]:
    cut = Cut(start=start, frames=frames, stride=stride)
    return [number_of(frame) for frame in read_clips(probe(str(folder)), [cut], size=SIZE).video_nthwc[0]]


@pytest.mark.parametrize(
    ("files", "folders", "expected"),
    [
        (["1.jpg", "2.JPG"], [], True),
        (["1.png", "2.jpeg", "readme.txt"], [], True),
        (["1.jpg"], [], False),
        (["1.jpg", ".2.jpg", "._3.jpg"], [], False),
        (["1.jpg", "2.jpg"], ["more"], False),
        (["1.jpg", "2.jpg"], [".thumbnails"], True),
        (["1.jpg", "2.jpg", "a.MP4"], [], False),
        (["1.txt", "2.txt"], [], False),
        ([], [], False),
        (["a.color.jpg", "a.depth.png", "a.pose.txt"], [], True),
        (["a.color.png", "b.depth.png"], ["more"], False),
        (["a.colour.png", "a.depth.png"], ["more"], False),
        (["A.Color.JPG", "A.Depth.PNG"], ["more"], True),
        (["a.color.jpg", "a.depth.png"], ["more"], True),
        ([], ["color", "depth"], True),
        (["scene.txt", "preview.mp4"], ["RGB", "Depth", "pose", "intrinsic"], True),
        ([], ["color", "pose"], False),
        ([], ["depth"], False),
    ],
)
def test_a_folder_of_frames_is_told_by_names(files: list[str], folders: list[str], expected: bool) -> None:
    assert holds_frames(files, folders) is expected


def test_frames_are_in_natural_order(tmp_path: Path) -> None:
    names = [f"frame{number}.jpg" for number in range(12)]
    folder = write_frames(tmp_path / "a", names)
    video = probe(str(folder))
    assert (video.frames, video.fps, video.codec, video.rotation) == (12, 25.0, "images", 0)
    assert (video.height, video.width, video.seconds) == (*SIZE, 12 / 25)
    assert numbers(folder, 0, 12, 1) == list(range(12))
    assert numbers(folder, 3) == [3, 5, 7, 9]
    assert numbers(folder, 99) == [5, 7, 9, 11]
    assert numbers(folder, 0, 4, 5) == [0, 5, 10, 11]


def test_endings_of_both_kinds_and_cases_and_gaps_in_the_numbers(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "a", ["8.PNG", "9.jpg", "10.JPEG", "0012.png", "13.Jpg"])
    (folder / ".14.jpg").write_bytes(b"rubbish")
    (folder / "labels.txt").write_text("no picture")
    assert numbers(folder, 0, 5, 1) == [0, 1, 2, 3, 4]


def test_numbers_are_in_order_however_they_are_padded(tmp_path: Path) -> None:
    names = ["a3.png", "a04.png", "A005.png", "a6.png", "a10.png", "a0011.png", "a123456789.png"]
    assert numbers(write_frames(tmp_path / "a", names), 0, 7, 1) == list(range(7))
    assert numbers(write_frames(tmp_path / "b", names[::-1]), 0, 7, 1) == list(range(7))[::-1]


def series_names(*patterns: str, frames: int = 3) -> list[str]:
    return [pattern.replace("*", f"{number:04d}") for pattern in patterns for number in range(frames)]


@pytest.mark.parametrize(
    "patterns",
    [
        ("flow_x_*.jpg", "flow_y_*.jpg", "img_*.jpg"),
        ("*_left.png", "*_right.png"),
        ("cam1_*.jpg", "cam2_*.jpg"),
        ("frame*.jpg", "mask*.png"),
        ("left-*.color.jpg", "left-*.depth.png", "right-*.color.jpg", "right-*.depth.png"),
    ],
)
def test_a_folder_of_several_series_is_none_and_each_can_be_named(tmp_path: Path, patterns: tuple[str, ...]) -> None:
    folder = write_frames(tmp_path / "a", series_names(*patterns))
    for path in folder.glob("*.depth.png"):
        write_depth(path, np.full(SIZE, 1000, np.uint16))
    stems = list(dict.fromkeys(pattern.split(".")[0] for pattern in patterns))
    with pytest.raises(UnreadableVideo) as caught:
        probe(str(folder))
    told = ", ".join(f"{stem} (3)" for stem in stems)
    assert caught.value.reason.startswith(f"it holds {len(stems)} series of pictures: {told}; name one of them")
    written = series_names(*patterns)
    for pattern in (name for name in patterns if ".depth" not in name):
        first = written.index(pattern.replace("*", "0000"))
        for name in (pattern, pattern.split(".")[0]):
            assert numbers(folder / name, 0, 3, 1) == [first, first + 1, first + 2]


def test_a_single_picture_beside_a_series_is_left_out_and_named(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "a", ["thumbnail.jpg", *series_names("img_*.jpg"), "cover.png", "img.jpg"])
    assert numbers(folder, 0, 3, 1) == [1, 2, 3]
    assert probe(str(folder)).left_out == ("cover.png", "img.jpg", "thumbnail.jpg")
    pairs = write_pairs(tmp_path / "b", 3)
    write_frames(pairs, ["preview.jpg"])
    assert (probe(str(pairs)).frames, probe(str(pairs)).left_out) == (3, ("preview.jpg",))


def test_pictures_that_are_no_series_are_no_video(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "a", ["image.jpg", "mask.jpg"])
    with pytest.raises(UnreadableVideo, match=r"are not a series, .* only in a number: image, mask"):
        probe(str(folder))
    with pytest.raises(UnreadableVideo, match=r"no such series of pictures; the folder has: none"):
        probe(str(folder / "img_*"))
    assert probe(str(write_frames(tmp_path / "b", ["image.jpg"]))).frames == 1


def test_two_pictures_of_one_number_are_unclear(tmp_path: Path) -> None:
    for names in (["1.jpg", "01.jpg", "2.jpg"], ["1.jpg", "1.webp", "2.jpg"]):
        with pytest.raises(UnreadableVideo, match=r"two pictures for one frame: "):
            probe(str(write_frames(tmp_path / names[1], names)))


@pytest.mark.parametrize("lossless", [False, True])
def test_webp(tmp_path: Path, lossless: bool) -> None:
    for number in range(4):
        Image.fromarray(numbered(number)).save(tmp_path / f"{number}.WebP", lossless=lossless, quality=95)
    write_frames(tmp_path, ["9.jpg"])
    assert numbers(tmp_path, 0, 4, 1) == [0, 1, 2, 3]
    _photo().save(tmp_path / "photo.webp", lossless=lossless, quality=95)
    content = (tmp_path / "photo.webp").read_bytes()
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "1.webp").write_bytes(content)
    read = read_whole(probe(str(tmp_path / "one")), size=(48, 64), most=1)[1][0].astype(int)
    wanted = np.array(Image.open(tmp_path / "photo.webp").convert("RGB")).astype(int)
    assert np.abs(read - wanted).mean() < (0.01 if lossless else 3)
    (tmp_path / "one" / "1.webp").write_bytes(content[:-60])
    with pytest.raises(UnreadableVideo, match=r"picture 1\.webp is damaged"):
        probe(str(tmp_path / "one"))


@pytest.mark.parametrize("ending", ["webp", "png"])
def test_an_animation_is_no_frame(tmp_path: Path, ending: str) -> None:
    pictures = [Image.fromarray(numbered(number)) for number in range(2)]
    for number in range(3):
        pictures[0].save(tmp_path / f"{number}.{ending}", save_all=True, append_images=pictures[1:])
    with pytest.raises(UnreadableVideo, match=rf"picture 0\.{ending} is an animation"):
        probe(str(tmp_path))


def test_a_link_that_leads_to_itself_is_no_folder(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "a", ["1.png", "2.png", "3.png"])
    (folder / "loop").symlink_to(folder / "loop")
    assert numbers(folder, 0, 3, 1) == [0, 1, 2]


def test_several_clips_share_what_is_decoded(tmp_path: Path) -> None:
    video = probe(str(write_frames(tmp_path / "a", [f"{i}.png" for i in range(20)])))
    cuts = [
        Cut(start=3, frames=4, stride=2),
        Cut(start=7, frames=4, stride=1),
        Cut(start=0, frames=4, stride=1, seconds=0.2),
    ]
    clips = read_clips(video, cuts, size=SIZE)
    assert [[number_of(frame) for frame in clip] for clip in clips.video_nthwc] == [
        [3, 5, 7, 9],
        [7, 8, 9, 10],
        [0, 5, 10, 15],
    ]
    assert clips.decoded == len({3, 5, 7, 9, 8, 10, 0, 15})
    seconds, frame_nhwc = read_whole(video, size=SIZE, most=999)
    assert seconds == pytest.approx(np.arange(20) / 25)
    np.testing.assert_array_equal(frame_nhwc[[3, 5, 7, 9]], clips.video_nthwc[0])


@pytest.mark.parametrize("name", ["mit leer %d", 'it\'s "a"', "neue\nzeile", "日本語 ü", "a:b", "100%03d"])
def test_odd_names(tmp_path: Path, name: str) -> None:
    folder = write_frames(tmp_path / name, [f"{name}{number}.jpg" for number in range(3)])
    assert numbers(folder, 0, 3, 1) == [0, 1, 2]
    (folder / f"{name}1.jpg").write_bytes(b"no")
    with pytest.raises(UnreadableVideo) as caught:
        probe(str(folder))
    assert caught.value.reason.isprintable()


def _photo() -> Image.Image:
    down, across = np.mgrid[:48, :64]
    return Image.fromarray(np.stack([across * 4, down * 5, (across + down) * 2], -1).astype(np.uint8))


PICTURES = {
    "jpeg 4:4:4": (_photo, {"format": "JPEG", "quality": 95, "subsampling": 0}, 4),
    "jpeg 4:2:0": (_photo, {"format": "JPEG", "quality": 95, "subsampling": 2}, 6),
    "progressive": (_photo, {"format": "JPEG", "quality": 95, "progressive": True}, 6),
    "grey jpeg": (lambda: _photo().convert("L"), {"format": "JPEG", "quality": 95}, 2),
    "cmyk": (lambda: _photo().convert("CMYK"), {"format": "JPEG", "quality": 95}, 4),
    "png": (_photo, {"format": "PNG"}, 0),
    "grey png": (lambda: _photo().convert("L"), {"format": "PNG"}, 0),
    "palette": (lambda: _photo().quantize(64), {"format": "PNG"}, 0),
    "small palette": (lambda: _photo().quantize(4), {"format": "PNG"}, 0),
    "transparent": (lambda: _photo().convert("RGBA"), {"format": "PNG"}, 0),
    "grey and transparent": (lambda: _photo().convert("LA"), {"format": "PNG"}, 0),
    "black and white": (lambda: _photo().convert("1"), {"format": "PNG"}, 0),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_colours_are_those_that_pillow_reads(tmp_path: Path, kind: str) -> None:
    """The whole range of grey levels: black is 0 and white 255 in JPEG too."""
    make, options, tolerance = PICTURES[kind]
    for name in ("1.jpg", "2.jpg"):  # a PNG may be called a JPEG
        make().save(tmp_path / name, **options)
    expected = np.asarray(Image.open(tmp_path / "1.jpg").convert("RGB")).astype(int)
    _, frame_nhwc = read_whole(probe(str(tmp_path)), size=(48, 64), most=999)
    assert np.abs(frame_nhwc[0] - expected).max() <= tolerance


def test_sixteen_bit_pictures_become_eight_bit_ones(tmp_path: Path) -> None:
    grey_hw = np.repeat(np.arange(256, dtype=np.uint16)[None], 16, 0)
    for name in ("1.png", "2.png"):
        write_depth(tmp_path / name, grey_hw * 257)
    _, frame_nhwc = read_whole(probe(str(tmp_path)), size=(16, 256), most=999)
    assert np.abs(frame_nhwc[0].astype(int) - grey_hw[..., None]).max() <= 1


def test_resizing_averages(tmp_path: Path) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, :32] = (200, 40, 90)
    picture[:, 32:, 1] = np.indices((64, 32)).sum(0) % 2 * 255  # a checkerboard has to become even grey
    for name in ("1.png", "2.png"):
        Image.fromarray(picture).save(tmp_path / name)
    small = read_whole(probe(str(tmp_path)), size=(8, 8), most=999)[1][0].astype(int)
    assert np.abs(small[:, :3] - (200, 40, 90)).max() <= 2
    assert np.abs(small[1:-1, 5:7] - (0, 127, 0)).max() <= 16


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_and_mirrored_pictures_are_made_upright(tmp_path: Path, ending: str, orientation: int) -> None:
    tag = Image.Exif()
    tag[0x0112] = orientation
    for number in range(2):
        _photo().save(tmp_path / f"{number}.{ending}", exif=tag, **({"quality": 95} if ending == "jpg" else {}))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / f"0.{ending}"))).astype(int)
    video = probe(str(tmp_path))
    assert (video.height, video.width) == expected.shape[:2]
    _, frame_nhwc = read_whole(video, size=(video.height, video.width), most=999)
    assert np.abs(frame_nhwc[1] - expected).max() <= 6


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.3, 0.6, 0.95])
def test_a_damaged_picture_is_named(tmp_path: Path, ending: str, keep: float) -> None:
    folder = write_frames(tmp_path / "a", [f"frame_{number:05}.{ending}" for number in range(9)])
    video = probe(str(folder))
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    damaged = folder / f"frame_00007.{ending}"
    Image.fromarray(noise).save(damaged)
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: int(len(whole) * keep)])
    assert probe(str(folder)) == video
    reason = rf"picture frame_00007\.{ending} is {'damaged' if keep else 'empty'}$"
    with pytest.raises(UnreadableVideo, match=reason):
        read_clips(video, [Cut(start=5, frames=2, stride=2)], size=SIZE)
    assert read_clips(video, [Cut(start=4, frames=2, stride=2)], size=SIZE).decoded == 2


@pytest.mark.parametrize("place", [0, 4, 8])
def test_the_first_the_middle_and_the_last_picture_are_looked_at(tmp_path: Path, place: int) -> None:
    folder = write_frames(tmp_path / "a", [f"{number}.jpg" for number in range(9)])
    (folder / f"{place}.jpg").write_text("hello")
    with pytest.raises(UnreadableVideo, match=rf"picture {place}\.jpg is neither JPEG, PNG nor WebP"):
        probe(str(folder))


def test_a_flipped_bit_in_a_png_is_damage(tmp_path: Path) -> None:
    """Also where nothing but its checksum tells."""
    folder = write_frames(tmp_path / "a", ["0.png", "1.png"])
    Image.fromarray(numbered(1)).save(folder / "1.png", compress_level=0)
    content = bytearray((folder / "1.png").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "1.png").write_bytes(content)
    with pytest.raises(UnreadableVideo, match=r"picture 1\.png is damaged"):
        probe(str(folder))


def test_all_pictures_have_one_size(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "a", [f"{number}.jpg" for number in range(9)])
    video = probe(str(folder))
    Image.fromarray(numbered(3, 20, 40)).save(folder / "3.jpg")
    with pytest.raises(UnreadableVideo, match=r"picture 3\.jpg is 40x20 .* the first is 160x32"):
        read_whole(video, size=SIZE, most=999)
    Image.fromarray(numbered(8, 20, 40)).save(folder / "8.jpg")
    with pytest.raises(UnreadableVideo, match=r"picture 8\.jpg is 40x20"):
        probe(str(folder))


def test_what_is_gone_or_unclear_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideo, match="cannot be read: No such file"):
        probe(str(tmp_path / "none"))
    with pytest.raises(UnreadableVideo, match="it holds no pictures"):
        probe(str(tmp_path))
    folder = write_frames(tmp_path / "a", [f"{number}.jpg" for number in range(9)])
    video = probe(str(folder))
    (folder / "5.jpg").unlink()
    with pytest.raises(UnreadableVideo, match="it holds 8 pictures; it held 9"):
        read_clips(video, [Cut(start=0, frames=2, stride=1)], size=SIZE)
    (folder / "5.jpg").symlink_to(tmp_path / "none")
    with pytest.raises(UnreadableVideo, match=r"picture 5\.jpg is missing"):
        read_clips(video, [Cut(start=5, frames=2, stride=1)], size=SIZE)
    write_frames(folder, ["4.png"])
    with pytest.raises(UnreadableVideo, match=r"two pictures for one frame: 4\.jpg and 4\.png"):
        probe(str(folder))


def test_mutated_pictures_are_read_or_refused(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    folder = write_frames(tmp_path / "a", ["0.jpg", "1.png"])
    video = probe(str(folder))
    whole = {path: np.frombuffer(path.read_bytes(), np.uint8) for path in folder.iterdir()}
    refused = 0
    for _ in range(60):
        for path, bytes_n in whole.items():
            mutated = bytes_n.copy()
            mutated[generator.integers(0, len(mutated), 3)] = generator.integers(0, 256, 3, np.uint8)
            path.write_bytes(mutated.tobytes())
        try:
            assert read_whole(video, size=SIZE, most=999)[1].shape == (2, *SIZE, 3)
        except UnreadableVideo:
            refused += 1
    assert refused > 30


def test_pairs_of_colour_and_depth(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path, 12)
    (folder / "frame-3.pose.txt").write_text("1 0 0")
    (folder / "frame-5.color.jpg").rename(folder / "frame-5.Color.JPG")
    Image.fromarray(numbered(0)).save(folder / "cover.png")
    video = probe(str(folder))
    assert (video.frames, video.fps) == (12, 30.0)
    cuts = [Cut(start=0, frames=3, stride=2), Cut(start=9, frames=3, stride=1)]
    depth_nthw = read_depth(video, cuts, size=(16, 80))
    assert (depth_nthw.dtype, depth_nthw.shape) == (np.float32, (2, 3, 16, 80))
    np.testing.assert_allclose(depth_nthw[:, :, 5, 5], [[1, 3, 5], [10, 11, 12]], rtol=1e-6)
    assert numbers(folder, 9, 3, 1) == [9, 10, 11]


@pytest.mark.parametrize("colour", ["color", "rgb"])
def test_an_exported_scene(tmp_path: Path, colour: str) -> None:
    """Depth maps may have another resolution than the pictures."""
    write_frames(tmp_path / colour, [f"{number}.jpg" for number in range(11)])
    for number in range(11):
        write_depth(tmp_path / "depth" / f"{number}.png", np.full((24, 32), 500 * number + 1, np.uint16))
    (tmp_path / "pose").mkdir()
    video = probe(str(tmp_path))
    assert (video.frames, video.fps, video.height, video.width) == (11, 30.0, *SIZE)
    depth_nthw = read_depth(video, [Cut(start=8, frames=3, stride=1)], size=SIZE)
    np.testing.assert_allclose(depth_nthw[0, :, 0, 0], [4.001, 4.501, 5.001], rtol=1e-6)
    assert numbers(tmp_path, 8, 3, 1) == [8, 9, 10]
    for path in (tmp_path / colour).iterdir():
        path.unlink()
    with pytest.raises(UnreadableVideo, match=f"its folder {colour} holds no pictures"):
        probe(str(tmp_path))


def test_depth_is_never_mixed(tmp_path: Path) -> None:
    """Against a loop over pixels: the value at the place where the centre of the new pixel falls."""
    folder = write_pairs(tmp_path, 2)
    generator = np.random.default_rng(0)
    map_hw = generator.choice([0, 65_535, 800, 1234, 9999, 65_534], (30, 41)).astype(np.uint16)
    write_depth(folder / "frame-0.depth.png", map_hw)
    for height, width in [(30, 41), (15, 20), (7, 13), (64, 90)]:
        video = probe(str(folder))
        depth_hw = read_depth(video, [Cut(start=0, frames=1, stride=1)], size=(height, width))[0, 0]
        for row in range(height):
            for column in range(width):
                value = map_hw[int((row + 0.5) * 30 / height), int((column + 0.5) * 41 / width)]
                assert depth_hw[row, column] == np.float32(0 if value == 65_535 else value) / np.float32(1000)


def test_depth_turns_with_its_picture(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path, 2)
    tag = Image.Exif()
    tag[0x0112] = 6  # shown after a quarter turn clockwise
    for number in range(2):
        Image.fromarray(numbered(number)).save(folder / f"frame-{number}.color.jpg", exif=tag)
    map_hw = np.arange(32 * 160, dtype=np.uint16).reshape(32, 160) + 1
    write_depth(folder / "frame-0.depth.png", map_hw)
    depth_hw = read_depth(probe(str(folder)), [Cut(start=0, frames=1, stride=1)], size=(160, 32))[0, 0]
    np.testing.assert_allclose(depth_hw, np.rot90(map_hw, -1) / 1000, rtol=1e-6)


def test_depth_that_is_none_is_refused(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path, 5)
    cut = Cut(start=0, frames=5, stride=1)
    video = probe(str(folder))
    (folder / "frame-1.depth.png").unlink()
    with pytest.raises(UnreadableVideo, match=r"picture frame-1\.color\.jpg has no depth map"):
        read_depth(video, [cut], size=SIZE)
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(folder / "frame-1.depth.png")
    with pytest.raises(UnreadableVideo, match=r"depth map frame-1\.depth\.png is not a 16-bit grayscale PNG"):
        read_depth(video, [cut], size=SIZE)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(folder / "frame-2.depth.png")
    with pytest.raises(UnreadableVideo, match=r"depth map frame-2\.depth\.png is not a 16-bit grayscale PNG"):
        probe(str(folder))


def test_a_real_room() -> None:
    folder = shared("kitchen_rgbd")
    video = probe(str(folder))
    assert (video.frames, video.height, video.width, video.fps) == (400, 480, 640, 30.0)
    cut = Cut(start=100, frames=4, stride=10)
    clip_thwc = read_clips(video, [cut], size=(480, 640)).video_nthwc[0]
    depth_thw = read_depth(video, [cut], size=(480, 640))[0]
    for frame_hwc, depth_hw, number in zip(clip_thwc, depth_thw, (200, 220, 240, 260), strict=True):
        expected_hwc = np.asarray(Image.open(folder / f"frame-{number:06}.color.jpg")).astype(int)
        assert np.abs(frame_hwc - expected_hwc).mean() < 2
        map_hw = np.asarray(Image.open(folder / f"frame-{number:06}.depth.png")).astype(np.float32)
        np.testing.assert_array_equal(depth_hw, np.where(map_hw == 65_535, 0, map_hw) / np.float32(1000))
    assert 0.02 < (depth_thw == 0).mean() < 0.3
    assert 0.5 < np.median(depth_thw[depth_thw > 0]) < 5
