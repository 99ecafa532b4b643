from __future__ import annotations

import sys

import pytest

from layerlock.data.decode.torchcodec import read_clips
from layerlock.data.decode.video import Cut, VideoInfo
from layerlock.errors import LayerlockError


def test_where_it_is_not_installed_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    video = VideoInfo(path="a.mp4", frames=1, fps=25, width=8, height=8, seconds=1, codec="h264", rotation=0)
    with pytest.raises(LayerlockError, match=r"pip install 'layerlock\[torchcodec\]'.*FFmpeg"):
        read_clips(video, [Cut(start=0, frames=1, stride=1)], size=(8, 8))
