"""Which videos a data set holds, with which labels, and which of them can be used."""

from __future__ import annotations

from layerlock.data.index.build import Index, build_index
from layerlock.data.index.layouts import list_videos

__all__ = ["Index", "build_index", "list_videos"]
