"""Whether the packets of a file alone tell what is shown of it, and when."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from layerlock.data.decode.bitstream import Look

if TYPE_CHECKING:
    from av.packet import Packet


@dataclass
class Survey:
    """Facts that are collected from packet to packet."""

    by_dts: bool
    """the times are times of decoding, which have to follow one another without a gap"""
    known: bytes
    """what the decoder is told at the start"""
    packets: int = 0
    shown: list[int] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    latest: list[int] = field(default_factory=list)
    """times of the latest packets, rising"""
    dts: int | None = None
    depth: int = 0
    """how many packets come before one that is shown earlier than they, at most"""
    keys: int = 0
    entries: int = 0
    sets: tuple[bytes, ...] = ()
    both_ways: bool = False
    doubt: bool = False

    def add(self, packet: Packet[Any], look: Look) -> bool:
        """Takes a packet in; False where the packets cannot tell what is shown."""
        time, dts, first = packet.pts, packet.dts, self.packets == 0
        if time is None or packet.is_corrupt or packet.has_sidedata("new_extradata") or (first and not look.entry):
            return False
        if not self._follows(time, dts):
            return False
        self.packets += 1
        if packet.is_keyframe:
            sets = tuple(unit for unit in look.sets if unit not in self.known)
            self.sets = sets if first else self.sets
            if look.entry and sets != self.sets:
                return False
            self.keys, self.entries = self.keys + 1, self.entries + look.entry
        self.dts = self.dts if dts is None else dts
        self.both_ways, self.doubt = self.both_ways or look.both_ways, self.doubt or look.doubt
        if look.shown:
            (self.dropped if packet.is_discard else self.shown).append(time)
            bisect.insort(self.latest, time)
            self.depth = max(self.depth, len(self.latest) - 1 - bisect.bisect_left(self.latest, time))
            del self.latest[:-64]
        return True

    def _follows(self, time: int, dts: int | None) -> bool:
        """Whether a packet's times are such as a packet that comes next can have."""
        if dts is None:
            return True
        step = 1 if self.dts is None else dts - self.dts
        return time >= dts and step > 0 and (step == 1 or not self.by_dts)

    def told(self) -> list[int] | None:
        """When each frame is shown, rising; None where the packets cannot tell."""
        times = sorted(self.shown)
        if not times or len(set(times)) < len(times) or times[0] < 0 or 2 * self.entries < self.keys:
            return None
        if any(times[0] <= time <= times[-1] for time in self.dropped):
            return None
        if times[0] < self.shown[0] and not self.dropped:
            return None  # shown before the first key frame, from which it cannot be decoded
        return times
