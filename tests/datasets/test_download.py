"""`lad download` against a local server: resuming, checksums, hostile archives, the licence question."""

from __future__ import annotations

import errno
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.datasets.conftest import tiny_png

from lad_datasets.download import unpack
from lad_datasets.download.datasets import DATASETS
from lad_datasets.download.download import download
from lad_datasets.sources import mvtec_ad
from lad_reasoner.commands.lad import main
from lad_reasoner.support.errors import DataError, LadError, RunError, UsageError


class Server(ThreadingHTTPServer):
    """Serves one body; ``stop_after`` closes the connection after so many bytes; with ``ranges`` it can continue."""

    body = b""
    stop_after: int | None = None
    ranges = True
    status = 0  # answered in place of the body

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str | None] = []
        self.headers: dict[str, str] = {}  # sent instead of the true ones

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/set.tar.xz"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.asked.append(wanted)
        if self.server.status:
            self.send_error(self.server.status)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.ranges else 0
        if start >= len(self.server.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(self.server.body)}")
            self.end_headers()
            return
        self.send_response(302 if "Location" in self.server.headers else 206 if start else 200)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(self.server.body) - 1}/{len(self.server.body)}")
        if not self.server.headers:
            self.send_header("Content-Length", str(len(self.server.body) - start))
        self.end_headers()
        self.wfile.write(self.server.body[start : self.server.stop_after])

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def tar(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as archive:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = b"" if isinstance(content, tarfile.TarInfo) else content
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def tree(prefix: str = "mvtec/") -> dict[str, bytes | tarfile.TarInfo]:
    names = ("train/good/000.png", "test/good/000.png", "test/broken_large/000.png")
    return {f"{prefix}{product}/{name}": tiny_png() for product in ("bottle", "cable") for name in names}


def fetch_set(server: Server, out: Path, **changes: str) -> None:
    digest = hashlib.sha256(server.body).hexdigest()
    download(replace(DATASETS["mvtec-ad"], **{"url": server.url, "sha256": digest} | changes, gigabytes=0), out)


@pytest.mark.parametrize("prefix", ["", "mvtec/", "./a/b/"])
def test_the_builders_read_what_is_unpacked(server: Server, tmp_path: Path, prefix: str) -> None:
    server.body = tar(tree(prefix))
    fetch_set(server, tmp_path / "sets/mvtec_ad")
    assert len(mvtec_ad.scan(tmp_path / "sets/mvtec_ad").samples) == 6
    assert [path.name for path in (tmp_path / "sets").iterdir()] == ["mvtec_ad"]  # neither archive nor draft


def test_an_interrupted_download_continues_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.body = tar(tree())
    server.stop_after = 100
    with pytest.raises(RunError, match=r"the download stopped .* Run the same command again to continue"):
        fetch_set(server, tmp_path / "set")
    server.stop_after = None
    fetch_set(server, tmp_path / "set")
    assert server.asked == [None, *["bytes=100-"] * 2]  # whether it can continue, and the rest
    assert (tmp_path / "set/bottle/train/good/000.png").is_file()


def test_a_server_that_cannot_continue_is_asked_for_everything(server: Server, tmp_path: Path) -> None:
    server.body, server.ranges = tar(tree()), False
    server.stop_after = 100
    with pytest.raises(RunError):
        fetch_set(server, tmp_path / "set")
    server.stop_after = None
    fetch_set(server, tmp_path / "set")
    assert (tmp_path / "set/bottle").is_dir()


@pytest.mark.parametrize("kept", ["complete", "too long"])
def test_a_complete_or_foreign_part_is_recognised(server: Server, tmp_path: Path, kept: str) -> None:
    server.body = tar(tree())
    (tmp_path / "..set.archive.part").write_bytes(server.body if kept == "complete" else b"x" * 10 * len(server.body))
    fetch_set(server, tmp_path / "set")
    assert (tmp_path / "set/bottle").is_dir()


def test_a_wrong_checksum_removes_the_file_and_is_named(server: Server, tmp_path: Path) -> None:
    server.body = tar(tree())
    with pytest.raises(DataError, match=f"not {'0' * 64}; the file is removed"):
        fetch_set(server, tmp_path / "set", sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_no_server_and_another_scheme_are_one_sentence(server: Server, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"127\.0\.0\.1 cannot be reached \(.*refused\)\. Check the network"):
        fetch_set(server, tmp_path / "set", url="http://127.0.0.1:9/x")
    with pytest.raises(RunError, match=r"host\.invalid cannot be reached"):
        fetch_set(server, tmp_path / "set", url="http://host.invalid/x")
    for url in ("file:///etc/passwd", "http://127.0.0.1/ü"):
        with pytest.raises(UsageError, match="not an http or https address"):
            fetch_set(server, tmp_path / "set", url=url)


def test_an_address_with_a_password_is_refused_and_not_shown(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="user name or password") as caught:
        fetch_set(server, tmp_path / "set", url=server.url.replace("//", "//me:geheim@"))
    assert "geheim" not in str(caught.value)
    assert server.asked == []


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_address_that_stays_wrong_is_not_to_be_asked_again(server: Server, tmp_path: Path, status: int) -> None:
    server.status = status
    with pytest.raises(RunError, match=rf"the server answers {status} .* Compare the address with") as caught:
        fetch_set(server, tmp_path / "set")
    assert "again" not in str(caught.value)


def test_a_tar_that_ends_with_a_zip_file_is_a_tar(server: Server, tmp_path: Path) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, content in [*tree().items(), ("mvtec/more.zip", _zip("a.txt", 0o100644))]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    server.body = plain.getvalue()
    fetch_set(server, tmp_path / "set")
    assert mvtec_ad.scan(tmp_path / "set").samples


@pytest.mark.parametrize("url", ["http://[bad", f"http://{'a' * 70}/x", "http://", "http://host:port/"])
def test_a_broken_address_is_one_sentence(server: Server, tmp_path: Path, url: str) -> None:
    with pytest.raises(RunError, match="the download stopped"):
        fetch_set(server, tmp_path / "set", url=url)


@pytest.mark.parametrize(
    ("name", "value"), [("Content-Length", "many"), ("Content-Length", "9" * 5000), ("Location", "http://[bad")]
)
def test_a_broken_header_is_one_sentence(server: Server, tmp_path: Path, name: str, value: str) -> None:
    server.body, server.headers = tar(tree()), {name: value}
    with pytest.raises(RunError, match="the download stopped"):
        fetch_set(server, tmp_path / "set")


def test_a_checksum_may_have_capitals_and_a_malformed_one_costs_no_download(server: Server, tmp_path: Path) -> None:
    server.body = tar(tree())
    with pytest.raises(UsageError, match="'abc' is not a SHA-256: 64 hexadecimal digits"):
        fetch_set(server, tmp_path / "set", sha256="abc")
    assert server.asked == []
    fetch_set(server, tmp_path / "set", sha256=hashlib.sha256(server.body).hexdigest().upper())
    assert (tmp_path / "set/bottle").is_dir()


def test_a_disk_that_fills_up_while_unpacking_costs_no_second_download(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.body = tar(tree())
    with monkeypatch.context() as patch:
        patch.setattr(unpack, "copy_bounded", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
        with pytest.raises(DataError, match=r"no space left on device\. Free some space"):
            fetch_set(server, tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir()] == [".set.archive"]
    fetch_set(server, tmp_path / "set")
    assert len(server.asked) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_link_to_nothing_exists(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set").symlink_to("nowhere")
    with pytest.raises(UsageError, match="it exists"):
        fetch_set(server, tmp_path / "set")


def _link(kind: bytes, name: str = "mvtec/link", target: str = "/etc/passwd") -> dict[str, bytes | tarfile.TarInfo]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return {name: info}


HOSTILE = {
    "parent": tar({"../outside.png": b"x"}),
    "deep parent": tar({"mvtec/a/../../../outside.png": b"x"}),
    "absolute": tar({"/srv/outside.png": b"x"}),
    "symlink": tar(_link(tarfile.SYMTYPE)),
    "symlink, then through it": tar(_link(tarfile.SYMTYPE, "d", "..") | {"d/outside.png": b"x"}),
    "hard link": tar(_link(tarfile.LNKTYPE)),
    "device": tar(_link(tarfile.CHRTYPE)),
    "fifo": tar(_link(tarfile.FIFOTYPE)),
    "bomb": tar({"zeros": b"\0" * (25 << 20)}),
    "twice": tar({"a": b"x", "./a": b"y"}),
    "file as folder": tar({"a": b"x", "a/b": b"y"}),
    "long name": tar({"a" * 300: b"x"}),
    "cut": tar(tree())[:300],
    "no archive": b"<html>please log in</html>",
    "empty": b"",
    "other data": tar({"readme.txt": b"x"}),
}


def _zip(name: str, mode: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as pack:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        pack.writestr(info, b"../../outside.png")
    return buffer.getvalue()


HOSTILE |= {"zip parent": _zip("../outside.png", 0o100644), "zip symlink": _zip("link", 0o120777)}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_one_sentence_and_writes_nothing(server: Server, tmp_path: Path, body: bytes) -> None:
    server.body = body
    with pytest.raises(LadError) as caught:
        fetch_set(server, tmp_path / "deep/set")
    assert len(str(caught.value)) < 400
    assert [path for path in tmp_path.rglob("*") if path.is_file() or path.is_symlink()] == []


def test_too_many_files_are_refused(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "MAX_FILES", 3)
    server.body = tar(tree())
    with pytest.raises(DataError, match="more than 3 files"):
        fetch_set(server, tmp_path / "set")


@pytest.mark.parametrize(("answer", "made"), [("y\n", True), ("n\n", False), ("", False), (None, False)])
def test_the_licence_is_shown_and_asked(
    server, tmp_path, monkeypatch, capsys, *, answer: str | None, made: bool
) -> None:
    server.body = tar(tree())
    monkeypatch.setattr("sys.stdin", answer if answer is None else io.StringIO(answer))
    digest = hashlib.sha256(server.body).hexdigest()
    words = ["download", "mvtec-ad", "--out", str(tmp_path / "set"), "--url", server.url, "--sha256", digest]
    with pytest.raises(SystemExit) as stop:
        main(words)
    shown = capsys.readouterr()
    assert "CC BY-NC-SA 4.0, not for commercial use" in shown.err
    assert (tmp_path / "set/bottle").is_dir() is made
    assert stop.value.code == (0 if made else 2)
    assert bool(server.asked) is made
    if made:
        assert shown.out == f"{tmp_path / 'set'}\n"
        assert f"Next: lad build grpo --mvtec {tmp_path / 'set'}" in shown.err
    else:
        assert shown.err.endswith("the licence was not accepted. Answer y, or pass --yes.\n")


def test_every_dataset_has_an_address_and_a_licence() -> None:
    assert set(DATASETS) == {"mvtec-ad", "visa", "mvtec-loco", "mmad"}
    for dataset in DATASETS.values():
        assert dataset.url.startswith("https://")
        assert dataset.sha256 is None or len(bytes.fromhex(dataset.sha256)) == 32
