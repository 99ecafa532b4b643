from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from video_files import write_video

from layerlock.data import Batch, ClipConfig, Sample, Source, Views, batches, crop_and_flip, loader, open_source
from layerlock.data.clips import ATTEMPTS
from layerlock.data.targets import Kind
from layerlock.errors import LayerlockError

CLIP = ClipConfig(frames=2, stride=1, size=8, resize=1.25)


@dataclass(frozen=True)
class Numbers:
    """Clips filled with their sample index plus 100 for each candidate passed over; `trouble` happens at sample `at`.

    So many of its candidates are `troubled`. Names are `wordy`: so many letters longer.
    """

    trouble: str = ""
    troubled: int = 1
    at: int = 13
    wordy: int = 0
    clip: ClipConfig = CLIP
    maps: tuple[str, ...] = ()

    def __len__(self) -> int:
        return 5

    @property
    def targets(self) -> dict[str, Kind]:
        return {"speed": "float"} | dict.fromkeys(self.maps, "map")

    @property
    def rejected(self) -> tuple[tuple[str, str], ...]:
        return ()

    @property
    def fingerprint(self) -> str:
        return "numbers"

    def name(self, index: int, attempt: int = 0) -> str:
        return f"number {index}.{attempt}" + "." * self.wordy

    def video_name(self, video: int) -> str:
        return f"video {video}"

    def view(self, video: int) -> Sample:
        if video == 3 and self.trouble:
            self.fail()
        return self.sample(1000 + video)

    def samples(self, group: int, attempt: int = 0) -> list[Sample]:
        together = self.clip.per_decode
        return [self.sample(index, attempt) for index in range(group * together, (group + 1) * together)]

    def sample(self, index: int, attempt: int = 0) -> Sample:
        if index == self.at and attempt < self.troubled and self.trouble:
            self.fail()
        return Sample(
            index=index,
            name=self.name(index, attempt),
            video_tchw=torch.full((2, 3, 10, 10), (index + 100 * attempt) % 256, dtype=torch.uint8),
            crop=(index % 3, 1, self.clip.size, self.clip.size),
            flip=False,
            targets={
                name: torch.full((2, 10, 10), index / 7 + n) if kind == "map" else torch.tensor(index / (n + 1))
                for n, (name, kind) in enumerate(self.targets.items())
            },
            skipped=(("bad.mp4", "it is empty"),) if index % 4 == 0 else (),
        )

    def fail(self) -> None:
        if self.trouble == "refuses":
            raise LayerlockError("the disk is on fire")
        if self.trouble == "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.trouble == "exits":
            os._exit(4)
        if self.trouble == "hangs":
            time.sleep(600)
        raise KeyError("a mistake")


def digest(found: list[Batch]) -> str:
    total = hashlib.sha256()
    for batch in found:
        total.update(repr((batch.index_b.tolist(), batch.names, batch.crop_b4.tolist(), batch.skipped)).encode())
        total.update(crop_and_flip(batch).numpy().tobytes())
        for name, target in sorted(batch.targets.items()):
            total.update(name.encode() + target.numpy().tobytes())
    return total.hexdigest()


def test_batch_s_holds_its_samples() -> None:
    found = list(batches(Numbers(), batch=4, start=3, stop=5, workers=0))
    assert [batch.index_b.tolist() for batch in found] == [[12, 13, 14, 15], [16, 17, 18, 19]]
    assert found[0].size == 8
    assert found[1].skipped == (("bad.mp4", "it is empty"),)


def test_no_steps_are_no_batches() -> None:
    assert list(batches(Numbers(), batch=4, start=5, stop=5, workers=2)) == []


@pytest.mark.parametrize("maps", [(), ("depth",), ("depth", "flow")])
def test_any_number_of_workers_gives_the_same(maps: tuple[str, ...]) -> None:
    source = Numbers(maps=maps)
    expected = list(batches(source, batch=3, start=1, stop=12, workers=0))
    assert expected[0].targets.keys() == {"speed", *maps}
    assert expected[0].targets["speed"].tolist() == [3, 4, 5]
    for workers in (1, 2, 4):
        assert digest(list(batches(source, batch=3, start=1, stop=12, workers=workers))) == digest(expected)


def test_a_batch_stays_as_it_is_when_the_next_come() -> None:
    found = list(batches(Numbers(), batch=2, start=0, stop=40, workers=2))
    for batch in found:
        assert batch.video_btchw[:, 0, 0, 0, 0].tolist() == [index % 256 for index in batch.index_b.tolist()]


@pytest.mark.parametrize(("batch", "workers"), [(1, 4), (2, 6), (1, 1)])
def test_pixels_stay_until_they_are_asked_for(batch: int, workers: int) -> None:
    """Workers that are far ahead of a slow reader do not write over what it has not seen."""
    for found in batches(Numbers(), batch=batch, start=0, stop=20, workers=workers):
        time.sleep(0.02)
        assert found.video_btchw[:, 1, 2, 9, 9].tolist() == found.index_b.tolist()


def test_pixels_of_views_stay_too() -> None:
    """Positions, not numbers of videos, tell the clips on their way apart."""
    views = Views(Numbers(), [40 * position for position in range(25)])
    for found in batches(views, batch=2, start=0, stop=12, workers=2):
        time.sleep(0.02)
        expected = [(1000 + 40 * position) % 256 for position in found.index_b.tolist()]
        assert found.video_btchw[:, 1, 2, 9, 9].tolist() == expected


def test_resuming_gives_the_rest() -> None:
    whole = list(batches(Numbers(), batch=3, start=0, stop=9, workers=2))
    rest = list(batches(Numbers(), batch=3, start=4, stop=9, workers=1))
    assert digest(whole[4:]) == digest(rest)


def test_real_files_are_the_same_with_any_number_of_workers(tmp_path: Path) -> None:
    for number in range(3):
        write_video(tmp_path / f"{number}.mp4", frames=20 + number, size=(20, 40))
    source = open_source(str(tmp_path), ClipConfig(frames=4, size=16), 1, workers=2)
    found = [digest(list(batches(source, batch=2, start=0, stop=5, workers=workers))) for workers in (0, 1, 3)]
    assert len(set(found)) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_refusal_arrives_as_it_was_said(workers: int) -> None:
    with pytest.raises(LayerlockError) as caught:
        list(batches(Numbers("refuses"), batch=4, start=0, stop=8, workers=workers))
    assert str(caught.value) == "the disk is on fire"


def test_batches_before_the_trouble_arrive() -> None:
    running = batches(Numbers("refuses"), batch=4, start=0, stop=8, workers=2)
    assert [next(running).index_b[0].item() for _ in range(3)] == [0, 4, 8]
    with pytest.raises(LayerlockError):
        next(running)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_batches_of_the_papers_arrive(no_hang: None, workers: int) -> None:
    for step, found in enumerate(batches(Numbers(), batch=8192, start=0, stop=2, workers=workers)):
        expected = torch.arange(step * 8192, (step + 1) * 8192)
        assert torch.equal(found.index_b, expected)
        assert torch.equal(found.video_btchw, (expected % 256).byte().view(-1, 1, 1, 1, 1).expand(-1, 2, 3, 10, 10))


@pytest.mark.parametrize("workers", [1, 2])
def test_facts_may_be_larger_than_what_a_socket_holds(no_hang: None, workers: int) -> None:
    source = Numbers(clip=replace(CLIP, per_decode=512), wordy=2000)
    expected = list(batches(source, batch=2048, start=0, stop=2, workers=0))
    assert digest(list(batches(source, batch=2048, start=0, stop=2, workers=workers))) == digest(expected)


@pytest.mark.parametrize(("trouble", "workers"), [("exits", 1), ("exits", 2), ("hangs", 2)])
def test_trouble_in_the_middle_of_a_large_batch_costs_a_candidate(no_hang: None, trouble: str, workers: int) -> None:
    source = Numbers(trouble, at=1300, wordy=200)
    seconds = 5.0 if trouble == "hangs" else 60.0
    (found,) = batches(source, batch=2048, start=0, stop=1, workers=workers, seconds=seconds)
    (whole,) = batches(Numbers(wordy=200), batch=2048, start=0, stop=1, workers=0)
    assert torch.equal(found.index_b, whole.index_b)
    assert [path for path, _ in found.skipped if path != "bad.mp4"] == [source.name(1300)]
    differ = (found.video_btchw != whole.video_btchw).flatten(1).any(1)
    assert differ.nonzero().flatten().tolist() == [1300]


@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("trouble", ["", "exits"])
def test_less_memory_ahead_than_a_batch_takes(monkeypatch: pytest.MonkeyPatch, together: int, trouble: str) -> None:
    monkeypatch.setattr(loader, "_BYTES_AHEAD", 5 * 2 * 3 * 10 * 10)
    source = Numbers(trouble, clip=replace(CLIP, per_decode=together), maps=("depth", "flow"))
    found = list(batches(source, batch=16, start=0, stop=4, workers=2))
    assert torch.equal(torch.cat([batch.index_b for batch in found]), torch.arange(64))
    replaced = range(13 // together * together, 14) if trouble else ()
    values = [index + 100 * (index in replaced) for index in range(64)]
    assert torch.cat([batch.video_btchw for batch in found])[:, 1, 2, 9, 9].tolist() == values
    for n, name in enumerate(source.maps, 1):
        value_b = torch.cat([batch.targets[name] for batch in found])[:, 1, 9, 9]
        assert torch.equal(value_b, torch.tensor([index / 7 + n for index in range(64)]))


def test_what_is_made_ahead_fits_into_its_memory() -> None:
    papers = ClipConfig()  # 16 frames of 258 x 258 pixels: 3.2 MB a clip
    assert loader._groups_ahead(papers, 8192, 2) == 672
    assert loader._groups_ahead(replace(papers, per_decode=16), 512, 2) == 42
    assert loader._groups_ahead(papers, 32, 2) == 66  # two batches, and one for each worker
    assert loader._groups_ahead(replace(papers, per_decode=4096), 2, 3) == 3  # at least one for each worker


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    ("trouble", "reason"), [("crashes", "SIGSEGV"), ("exits", "exit code 4"), ("hangs", "it takes too long")]
)
def test_a_crash_or_hang_costs_the_candidate_not_the_run(workers: int, trouble: str, reason: str) -> None:
    whole = list(batches(Numbers(), batch=4, start=0, stop=8, workers=0))
    seconds = 5.0 if trouble == "hangs" else 60.0
    found = list(batches(Numbers(trouble, troubled=2), batch=4, start=0, stop=8, workers=workers, seconds=seconds))
    assert digest(found[:3] + found[4:]) == digest(whole[:3] + whole[4:])
    hit = found[3]
    assert hit.index_b.tolist() == [12, 13, 14, 15]
    assert hit.names == ("number 12.0", "number 13.2", "number 14.0", "number 15.0")
    assert hit.video_btchw[:, 1, 2, 3, 4].tolist() == [12, 213, 14, 15]
    assert [path for path, _ in hit.skipped] == ["bad.mp4", "number 13.0", "number 13.1"]
    assert all(reason in why for _, why in hit.skipped[1:])


def test_it_gives_up_when_every_candidate_crashes() -> None:
    with pytest.raises(
        LayerlockError, match=rf"(?s)sample 13 cannot be made: {ATTEMPTS} workers .*number 13\.0: .*exit code 4"
    ):
        list(batches(Numbers("exits", troubled=10**6), batch=4, start=0, stop=8, workers=2))


def test_a_view_that_crashes_is_black_and_named() -> None:
    [found] = batches(Views(Numbers("exits"), range(1, 5)), batch=4, start=0, stop=1, workers=2)
    assert found.names[2] == "video 3"
    assert [path for path, _ in found.skipped if path != "bad.mp4"] == ["video 3"]
    assert found.video_btchw[2].max() == 0


def test_a_source_that_gives_another_sample_is_a_mistake() -> None:
    for workers in (0, 1):
        with pytest.raises((ValueError, RuntimeError), match=r"gave the samples \[1\] for group 0"):
            list(batches(Shifted(), batch=1, start=0, stop=2, workers=workers))


class Shifted(Numbers):
    def sample(self, index: int, attempt: int = 0) -> Sample:
        return super().sample(index + 1, attempt)


def test_a_mistake_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="a mistake"):
        list(batches(Numbers("errs"), batch=4, start=0, stop=8, workers=2))


def test_closing_early_leaves_no_process() -> None:
    before = _children()
    running = batches(Numbers(), batch=4, start=0, stop=1000, workers=3)
    next(running)
    assert len(_children() - before) >= 3
    started = time.monotonic()
    running.close()
    assert time.monotonic() - started < 10
    assert len(_children() - before) <= 2  # the server and the keeper of shared names may stay


def _children() -> set[int]:
    """This process's children and theirs."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(status.parent.name)] = int(fields[1])
    return {pid for pid, parent in parents.items() if os.getpid() in (parent, parents.get(parent))}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_leaves_the_workers_at_work(tmp_path: Path, number: signal.Signals) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", frames=4, size=(20, 20))
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal, sys\n"
        "from layerlock.data import ClipConfig, batches, open_source\n"
        f"source = open_source({str(tmp_path)!r}, ClipConfig(frames=2, size=8), 0, workers=2)\n"
        "running = batches(source, batch=2, start=0, stop=40, workers=2)\n"
        "next(running)\n"
        f"signal.signal({int(number)}, lambda *_: print('saving', flush=True))\n"
        f"os.killpg(0, {int(number)})\n"
        "print(sum(1 for _ in running), flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["saving", "39"]


def test_an_unfinished_iterator_does_not_hold_up_the_exit(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=4, size=(20, 20))
    script = (
        "from layerlock.data import ClipConfig, batches, open_source\n"
        f"source = open_source({str(tmp_path)!r}, ClipConfig(frames=2, size=8), 0, workers=0)\n"
        "running = batches(source, batch=2, start=0, stop=10**6, workers=2)\n"
        "print(len(next(running)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


def test_shares_of_processes_together_are_the_batch() -> None:
    for together in (1, 2):
        source = replace(Numbers(), clip=replace(Numbers().clip, per_decode=together))
        (whole,) = batches(source, batch=16, start=3, stop=4, workers=0)
        for ranks in (1, 2, 8):
            shares = [
                next(batches(source, batch=16, start=3, stop=4, workers=rank % 2, rank=rank, ranks=ranks))
                for rank in range(ranks)
            ]
            assert torch.equal(torch.cat([share.index_b for share in shares]), whole.index_b)
            assert torch.equal(torch.cat([share.video_btchw for share in shares]), whole.video_btchw)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ValueError, match="6 is not a multiple of 4 processes x 1"):
        next(batches(Numbers(), batch=6, start=0, stop=1, workers=0, ranks=4))


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """Three videos of their own length, and one that breaks off after it was indexed."""
    for number, frames in enumerate((70, 40, 9)):
        write_video(tmp_path / f"{number}.mp4", frames=frames)
    return tmp_path


def pixels_of(source: Source, workers: int, ranks: int, cuts: tuple[int, ...]) -> str:
    """A hash of all pixels and names of batches 0 to 5, read in pieces that begin at `cuts`."""
    total = hashlib.sha256()
    for start, stop in pairwise((*cuts, 6)):
        shares = [
            batches(source, batch=16, start=start, stop=stop, workers=workers, rank=rank, ranks=ranks)
            for rank in range(ranks)
        ]
        for parts in zip(*shares, strict=True):
            for part in parts:
                for name, video_tchw in zip(part.names, part.video_btchw, strict=True):
                    total.update(name.encode() + video_tchw.numpy().tobytes())
    return total.hexdigest()


@pytest.mark.parametrize("together", [1, 2])
def test_the_same_pixels_for_any_workers_ranks_and_resumes(real: Path, together: int) -> None:
    clip = ClipConfig(frames=3, stride=2, size=12, per_decode=together)
    source = open_source(str(real), clip, 5, workers=0)
    (real / "1.mp4").write_bytes(b"")  # now every sample of it has to be replaced
    ways = [(0, 1, (0,)), (1, 1, (0,)), (4, 1, (0,)), (2, 1, (0, 1, 4)), (1, 2, (0,)), (0, 8, (0, 3))]
    assert len({pixels_of(source, *way) for way in ways}) == 1
    assert pixels_of(open_source(str(real), clip, 6, workers=0), 0, 1, (0,)) != pixels_of(source, 0, 1, (0,))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_that_no_memory_is_there_for_is_said_at_once(workers: int) -> None:
    with pytest.raises(LayerlockError, match=r"batch: 1,000,000,000,000 clips .* take 600,000\.0 GB; this machine has"):
        next(batches(Numbers(), batch=10**12, start=0, stop=1, workers=workers))
