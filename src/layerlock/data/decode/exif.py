"""The orientation that is written into a picture file: EXIF, tag 274 (CIPA DC-008, 4.6.4), in JPEG, PNG and WebP."""

from __future__ import annotations

from layerlock.data.decode.picture import Orientation

_TAG, _SHORT = 0x0112, 3

_MEANINGS = {
    2: Orientation(0, True),
    3: Orientation(2, False),
    4: Orientation(2, True),
    5: Orientation(3, True),
    6: Orientation(3, False),
    7: Orientation(1, True),
    8: Orientation(1, False),
}


def exif_orientation(content: bytes) -> Orientation:
    """What makes the picture in a file upright; nothing where the file does not say, or what it says cannot be read."""
    for block in (_jpeg_block, _png_block, _webp_block):
        tiff = block(content)
        if tiff:
            return _MEANINGS.get(_value(tiff), Orientation(0, False))
    return Orientation(0, False)


def _jpeg_block(content: bytes) -> bytes:
    """The EXIF data in an APP1 segment before the picture."""
    at = 2
    while content.startswith(b"\xff\xd8") and content[at : at + 1] == b"\xff" and content[at + 1] != 0xDA:
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        if content[at + 1] == 0xE1 and content[at + 4 : at + 10] == b"Exif\0\0":
            return content[at + 10 : at + 2 + length]
        at += 2 + max(2, length)
        if at + 1 >= len(content):
            break
    return b""


def _png_block(content: bytes) -> bytes:
    at = 8
    while content.startswith(b"\x89PNG") and at + 8 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] == b"eXIf":
            return content[at + 8 : at + 8 + length]
        at += length + 12
    return b""


def _webp_block(content: bytes) -> bytes:
    at = 12
    while content.startswith(b"RIFF") and content[8:12] == b"WEBP" and at + 8 <= len(content):
        length = int.from_bytes(content[at + 4 : at + 8], "little")
        if content[at : at + 4] == b"EXIF":
            return content[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0")
        at += 8 + length + length % 2
    return b""


def _value(tiff: bytes) -> int:
    """The tag's value in the first directory of TIFF data; 1 where it is not there."""
    order = "little" if tiff[:2] == b"II" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], order)  # type: ignore[arg-type]

    begin = number(4, 4)
    for entry in range(begin + 2, begin + 2 + 12 * number(begin, 2), 12):
        if number(entry, 2) == _TAG and number(entry + 2, 2) == _SHORT:
            return number(entry + 8, 2)
        if entry > len(tiff):
            break
    return 1
