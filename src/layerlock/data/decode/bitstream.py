"""What the bytes of a packet say where its flags do not tell: an entry for the decoder, a hidden picture, a B picture.

Only the first bits of each picture are read. Sources: ITU-T H.264 (7.3.1, 7.3.3), H.265 (7.3.1.2), ISO/IEC 14496-2
(6.2.5), 13818-2 (6.2.3), RFC 6386 (9.1) for VP8, the bitstream specifications of VP9 (6.2) and AV1 (5.3, 5.9.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

_INTRA = ("mjpeg", "prores", "dnxhd", "huffyuv", "ffvhuff", "utvideo", "rawvideo", "png", "dvvideo", "v210", "qtrle")
"""codecs whose pictures refer to no other"""

_WITHOUT_B = ("ffv1", "flv1", "h263", "msmpeg4v2", "msmpeg4v3")
"""codecs without B pictures, whose key frames reset the decoder"""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a packet holds."""

    entry: bool
    """decoding that begins here gives this picture, and all that are shown after it, as decoding from the start does"""
    shown: bool = True
    """it holds a picture that is shown"""
    both_ways: bool = False
    """it may hold a picture that is decoded after one that is shown later (a B picture)"""
    sets: tuple[bytes, ...] = ()
    """parameter sets in it"""
    doubt: bool = False
    """its first bits do not say what it decodes to"""


def looker(codec: str, extradata: bytes | None) -> Callable[[bytes, bool], Look] | None:
    """What looks into packets (their bytes, whether they are flagged as key); None for a codec not known here."""
    head = extradata or b""
    if codec == "h264":
        prefix = (head[4] & 3) + 1 if len(head) > 6 and head[0] == 1 else 0
        return lambda data, key: _h264(data, key, prefix)
    if codec == "hevc":
        prefix = (head[21] & 3) + 1 if len(head) > 22 and head[0] == 1 else 0
        return lambda data, key: _hevc(data, key, prefix)
    return _LOOKS.get(codec)


def _h264(data: bytes, key: bool, prefix: int) -> Look:
    """Key frames that are no IDR picture (recovery points, intra refresh, open groups) are no entries."""
    sets = []
    for unit in _units(data, prefix):
        kind = unit[0] & 31
        if kind in (7, 8):
            sets.append(unit)
        elif 1 <= kind <= 5:
            slice_type = _slice_type(unit)
            return Look(entry=key and kind == 5, both_ways=slice_type % 5 == 1, sets=tuple(sets))
    return Look(entry=False, shown=False, doubt=True)


def _hevc(data: bytes, key: bool, prefix: int) -> Look:
    """Decoding can begin at any intra random access point: what then cannot be decoded is shown before it (8.3.3)."""
    sets = []
    for unit in _units(data, prefix):
        kind = unit[0] >> 1 & 63
        if 32 <= kind <= 34:
            sets.append(unit)
        elif kind < 32:
            return Look(entry=key and 16 <= kind <= 21, both_ways=kind < 16, sets=tuple(sets))
    return Look(entry=False, shown=False, doubt=True)


def _units(data: bytes, prefix: int) -> Iterator[bytes]:
    """Units of a packet of H.264 or HEVC, each behind its length of `prefix` bytes, or behind a start code where 0."""
    at = 0
    while prefix and at + prefix < len(data):
        length = int.from_bytes(data[at : at + prefix], "big")
        at += prefix
        if length:
            yield data[at : at + length]
        at += length
    if prefix:
        return
    at = data.find(b"\0\0\1")
    while at >= 0:
        following = data.find(b"\0\0\1", at + 3)
        unit = data[at + 3 : following if following >= 0 else len(data)].rstrip(b"\0")
        if unit:
            yield unit
        at = following


def _slice_type(unit: bytes) -> int:
    """Of an H.264 slice: the second of two Exp-Golomb numbers behind the first byte."""
    bits = "".join(f"{byte:08b}" for byte in unit[1:12])
    at = value = 0
    for _ in range(2):
        zeros = bits.find("1", at) - at
        if zeros < 0:
            return 0
        value = int(bits[at + zeros : at + 2 * zeros + 1] or "1", 2) - 1
        at += 2 * zeros + 1
    return value


def _mpeg4(data: bytes, key: bool) -> Look:
    """One packet may hold two pictures (packed), or an empty one in place of a picture that was shown before."""
    at = data.find(b"\0\0\1\xb6")
    if at < 0 or at + 4 >= len(data):
        return Look(entry=False, doubt=True)
    kind = data[at + 4] >> 6
    packed = data.find(b"\0\0\1\xb6", at + 4) >= 0
    return Look(entry=key and kind == 0, both_ways=kind == 2, doubt=packed or len(data) - at < _EMPTY)


_EMPTY = 20
"""bytes of a picture that may be an empty one"""


def _mpeg2(data: bytes, key: bool) -> Look:
    at = data.find(b"\0\0\1\0")
    if at < 0 or at + 5 >= len(data):
        return Look(entry=False, doubt=True)
    kind = data[at + 5] >> 3 & 7
    return Look(entry=key and kind == 1, both_ways=kind == 3)


def _vp8(data: bytes, key: bool) -> Look:
    return Look(entry=key and not data[0] & 1, shown=bool(data[0] >> 4 & 1))


def _vp9(data: bytes, key: bool) -> Look:
    """Hidden pictures stand before a shown one in the same packet (a superframe) or, seldom, alone."""
    bits = data[0]
    third = (bits >> 5 & 1) + 2 * (bits >> 4 & 1) == 3  # profile 3 has a reserved bit more
    existing, frame_type, show = (bits >> (at - third) & 1 for at in (3, 2, 1))
    if existing:
        return Look(entry=False)
    superframe = data[-1] & 0xE0 == 0xC0
    return Look(entry=key and not frame_type and bool(show), shown=bool(show) or superframe)


def _av1(data: bytes, key: bool) -> Look:
    """A temporal unit shows one picture. Key frames that are shown later do not end what went before."""
    at = 0
    while at < len(data):
        kind, extended, sized = data[at] >> 3 & 15, data[at] >> 2 & 1, data[at] >> 1 & 1
        at += 1 + extended
        length, shift = 0, 0
        while sized and at < len(data):
            length |= (data[at] & 127) << shift
            shift, at, more = shift + 7, at + 1, data[at] >> 7
            if not more:
                break
        if kind in (3, 6) and at < len(data):
            return Look(entry=key and data[at] & 0xF0 == 0x10)  # not shown before, of type key, shown
        if not sized:
            break
        at += length
    return Look(entry=False, doubt=True)


def _flagged(data: bytes, key: bool) -> Look:
    return Look(entry=key)


_LOOKS: dict[str, Callable[[bytes, bool], Look]] = {
    "mpeg4": _mpeg4,
    "mpeg2video": _mpeg2,
    "mpeg1video": _mpeg2,
    "vp8": _vp8,
    "vp9": _vp9,
    "av1": _av1,
    **dict.fromkeys((*_INTRA, *_WITHOUT_B), _flagged),
}
