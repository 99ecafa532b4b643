"""Shards behind a real HTTP server on this machine that also fails, and behind moto's S3."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from video_files import write_video

from layerlock.data import ClipConfig, batches, open_source, remote, save_source
from layerlock.data.folder import FolderSource
from layerlock.data.index import build_index
from layerlock.data.index.shards import build as build_module
from layerlock.data.pack import write_pack
from layerlock.data.transcode import Encoding
from layerlock.errors import LayerlockError

pytest.importorskip("aiohttp", reason="needs the extra `remote`")

CLIP = ClipConfig(frames=4, stride=2, size=32, resize=1.0)


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERLOCK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    monkeypatch.setattr(remote, "SECONDS", 1.0)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven videos in shards of two or three."""
    root = tmp_path_factory.mktemp("videos")
    for number in range(7):
        write_video(root / "v" / "ab"[number % 2] / f"{number}.mp4", frames=20 + 3 * number)
    return write_pack(str(root / "v"), root / "p", Encoding(), shard_mb=0.007, workers=0).out


@pytest.fixture
def shards(pack: Path, tmp_path: Path) -> Path:
    shutil.copytree(pack, tmp_path / "s")
    return tmp_path / "s"


class Server(ThreadingHTTPServer):
    """Serves a folder; for each path in `faults` the next answers fail in these ways, the last of them for ever if it
    ends in an exclamation mark.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.faults: dict[str, list[str]] = {}
        self.asked: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fault(self, path: str) -> str:
        faults = self.faults.get(path, [])
        return (faults[0] if faults[0].endswith("!") else faults.pop(0)).rstrip("!") if faults else ""


class Handler(BaseHTTPRequestHandler):
    """Files by ranges, folders as lists of links."""

    server: Server

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = self.path.lstrip("/")
        file, fault = self.server.folder / path, self.server.fault(path)
        self.server.asked[path] += 1
        if fault == "500" or not file.exists():
            self.send_error(500 if fault == "500" else 404)
            return
        if fault == "stall":
            time.sleep(3)
            return
        if file.is_dir():
            content = "".join(f'<a href="{each.name}">{each.name}</a>\n' for each in file.iterdir()).encode()
        else:
            content = file.read_bytes()
        asked = self.headers.get("Range")
        if asked and fault != "whole":
            begin, end = map(int, asked.removeprefix("bytes=").split("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end}/{len(content)}")
            content = content[begin : end + 1]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if body:
            self.wfile.write(content[: len(content) // 2] if fault == "cut" else content)
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(shards: Path) -> Iterator[Server]:
    made = Server(shards)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def source_of(data: str | Path, seed: int = 3) -> FolderSource:
    return FolderSource(build_index(data, 0), CLIP, seed)


def assert_same_clips(one: FolderSource, other: FolderSource) -> None:
    for group in range(2 * len(one)):
        (before,), (after,) = one.samples(group), other.samples(group)
        assert after.skipped == ()
        assert torch.equal(before.video_tchw, after.video_tchw)
        assert Path(before.name).name == Path(after.name).name


def test_the_index_is_fetched_once_and_clips_are_read_by_ranges(shards: Path, server: Server) -> None:
    source = source_of(server.url + "/")
    assert set(server.asked) == {"index.safetensors"}
    assert source.index.classes == ("a", "b")
    assert source.index.videos[0].path == f"{server.url}/00000.tar/000000000.mp4"
    local = source_of(shards)
    assert source.fingerprint == local.fingerprint
    server.asked.clear()
    assert_same_clips(local, source)
    assert sum(server.asked.values()) == 2 * 7
    server.asked.clear()
    assert len(build_index(server.url, 0)) == 7
    assert server.asked == {"index.safetensors": 2}


@pytest.mark.parametrize("fault", ["500", "cut", "stall"])
def test_what_fails_is_tried_again(shards: Path, server: Server, fault: str) -> None:
    server.faults = {name: [fault] for name in ("index.safetensors", "00000.tar", "00001.tar")}
    assert_same_clips(source_of(shards), source_of(server.url))


def test_a_shard_that_stays_broken_costs_its_videos_alone(shards: Path, server: Server) -> None:
    source = source_of(server.url)
    server.faults = {"00000.tar": ["500!"], "00001.tar": ["whole!"]}
    (shards / "00002.tar").unlink()
    server.asked.clear()
    samples = [source.samples(group)[0] for group in range(7)]
    reasons = {Path(path).parent.name: reason for sample in samples for path, reason in sample.skipped}
    assert reasons.keys() == {"00000.tar", "00001.tar", "00002.tar"}
    assert reasons["00000.tar"].startswith("it cannot be opened: 500, message='Internal Server Error'")
    assert reasons["00000.tar"].endswith("(tried 4 times)")
    assert "sends whole files where a range is asked for" in reasons["00001.tar"]
    assert server.url in reasons["00002.tar"]
    assert "tried" not in reasons["00001.tar"] + reasons["00002.tar"]
    lost = {path for sample in samples for path, _ in sample.skipped}
    assert {sample.name for sample in samples} | lost == {video.path for video in source.index.videos}
    server.faults = {f"{number:05d}.tar": ["500!"] for number in range(10)}
    with pytest.raises(LayerlockError, match="7 videos in a row could not be used"):
        source.samples(0)


def test_shards_without_an_index_are_indexed_in_the_cache(shards: Path, server: Server, tmp_path: Path) -> None:
    whole = source_of(shards)
    (shards / "index.safetensors").unlink()
    source = source_of(server.url)
    assert_same_clips(whole, source)
    assert source.index.classes == ("a", "b")
    server.asked.clear()
    assert_same_clips(source, source_of(server.url))
    assert server.asked["00000.tar"] <= 1 + 2 * 2 * 3
    (shards / "list.txt").write_text("00001.tar\nnone.tar\n")
    listed = build_index(f"{server.url}/list.txt", 0)
    assert {Path(video.path).parent.name for video in listed.videos} == {"00001.tar"}
    assert [path for path, _ in listed.rejected] == [f"{server.url}/none.tar"]
    assert len(build_index(f"{server.url}/00001.tar", 0)) == len(listed)
    (tmp_path / "local.txt").write_text(f"{server.url}/00001.tar\n")
    assert len(build_index(tmp_path / "local.txt", 0)) == len(listed)


def test_a_shard_that_cannot_be_read_is_named_and_read_later(shards: Path, server: Server) -> None:
    (shards / "index.safetensors").unlink()
    server.faults = {"00001.tar": ["", *["500"] * 100]}
    index = build_index(server.url, 0)
    assert 0 < len(index) < 7
    ((path, reason),) = index.rejected
    assert path == f"{server.url}/00001.tar"
    assert "it cannot be read: 500" in reason
    server.faults = {}
    assert len(build_index(server.url, 0)) == 7


def test_another_index_is_fetched_anew_and_on_a_machine_without_a_copy(
    shards: Path, server: Server, tmp_path: Path
) -> None:
    source = source_of(server.url)
    frozen = pickle.dumps(source)
    shutil.rmtree(tmp_path / "cache")
    assert_same_clips(source_of(shards), pickle.loads(frozen))
    (shards / "00002.tar").unlink()
    (shards / "index.safetensors").unlink()
    build_index(shards, 0)
    assert len(build_index(server.url, 0)) < 7
    with pytest.raises(LayerlockError, match="were indexed anew meanwhile"):
        pickle.loads(frozen)


def test_columns_that_the_index_lacks_are_read_from_the_shards(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build_index(server.url, 0, targets={"path": None}).targets["path"].classes
    monkeypatch.setattr(build_module, "read_contents", None)
    assert build_index(server.url, 0, targets={"path": None}).targets["path"].classes


def test_loader_processes_and_a_resume_read_over_the_network(server: Server, tmp_path: Path) -> None:
    source = open_source(server.url, CLIP, 5, workers=0)
    here = list(batches(source, batch=7, start=0, stop=2, workers=0))
    for one, other in zip(here, batches(source, batch=7, start=0, stop=2, workers=1), strict=True):
        assert torch.equal(one.video_btchw, other.video_btchw)
    save_source(source, server.url, tmp_path / "index.json")
    assert json.loads((tmp_path / "index.json").read_text()) == {"shards": source.fingerprint}
    again = open_source(server.url, replace(CLIP), 5, saved=tmp_path / "index.json")
    assert again.fingerprint == source.fingerprint


def test_what_is_not_there_is_an_error(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LayerlockError, match=r"nowhere: it cannot be read"):
        build_index(f"{server.url}/nowhere", 0)
    with pytest.raises(LayerlockError, match="Protocol not known: none"):
        build_index("none://a/b", 0)
    with pytest.raises(LayerlockError, match=r"data_root: .* is not a list"):
        build_index(server.url, 0, root="/")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(LayerlockError, match=r"this needs `pip install 'layerlock\[remote\]'`"):
        build_index(server.url, 0)


@pytest.mark.parametrize(
    "secret", ["https://host/a.tar?sig=SECRET", "https://me:SECRET@host/shards", "s3://b/x?SECRET"]
)
def test_urls_with_secrets_are_refused_without_naming_them(secret: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"a.tar\n{secret}\n")
    for data, root in ((secret, None), (str(tmp_path / "list.txt"), None), (str(tmp_path / "list.txt"), secret)):
        with pytest.raises(LayerlockError, match="URLs with a password or a query are not taken") as told:
            build_index(data, 0, root=root)
        assert "SECRET" not in str(told.value)


def test_s3(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs", reason="needs the extra `remote`")
    moto_server = pytest.importorskip("moto.server", reason="needs moto and flask")
    import boto3
    from fsspec.config import conf

    made = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    made.start()
    try:
        host, port = made.get_host_and_port()
        access = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1", **access)
        client.create_bucket(Bucket="bucket")
        for path in shards.iterdir():
            client.put_object(Bucket="bucket", Key=f"set/{path.name}", Body=path.read_bytes())
        monkeypatch.setitem(
            conf,
            "s3",
            {"endpoint_url": f"http://{host}:{port}", "key": "a", "secret": "b"},
        )
        assert_same_clips(source_of(shards), source_of("s3://bucket/set"))
        client.delete_object(Bucket="bucket", Key="set/index.safetensors")
        assert_same_clips(source_of(shards), source_of("s3://bucket/set"))
        client.delete_object(Bucket="bucket", Key="set/00000.tar")
        assert len(build_index("s3://bucket/set", 0)) < 7
    finally:
        made.stop()


def test_an_index_that_names_files_of_this_machine_is_refused(pack: Path) -> None:
    import fsspec

    raw = (pack / "index.safetensors").read_bytes()
    forged = raw.replace(b"00000.tar", b"/etc/.tar", 1)
    assert forged != raw
    fsspec.filesystem("memory").pipe("/forged/index.safetensors", forged)
    with pytest.raises(LayerlockError, match=r"index\.safetensors: it cannot be read \(it names shards outside"):
        build_index("memory://forged", 0)
