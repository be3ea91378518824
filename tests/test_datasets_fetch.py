"""MNIST and CIFAR fetched from a mirror: checked before they are put in place."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import io
import os
import tarfile
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cifar_files import NAMES as CLASSES
from cifar_files import binary, expected, shrink
from command_line import as_json, fails, works
from fuzz_cases import write_idx

from nembp.datasets import arrays, cifar, fetch, load
from nembp.datasets.arrays import NAMES
from nembp.datasets.fetch import fetch as fetch_files
from nembp.errors import ArchitectureError, DataError, OutputError

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "mnist-sample"
FILES = [f"{name}.gz" for name in NAMES]
LAST = FILES[3]


def send(handler: http.server.BaseHTTPRequestHandler, content: bytes, announced=...) -> None:
    handler.send_response(200)
    if announced is not None:
        handler.send_header("Content-Length", str(len(content) if announced is ... else announced))
    handler.end_headers()
    with contextlib.suppress(OSError):  # the client had enough
        handler.wfile.write(content)
    handler.close_connection = True


@pytest.fixture
def mirror(monkeypatch):
    """A web server of the sample, which takes MNIST's place; a test may replace an answer."""
    content = {name: (SAMPLE / name).read_bytes() for name in FILES}
    unpacked = [gzip.decompress(each) for each in content.values()]
    sums = [(hashlib.md5(each).hexdigest(), len(each)) for each in unpacked]
    monkeypatch.setattr(arrays, "MNIST", dict(zip(NAMES, sums, strict=True)))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    answer, asked = {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path.rpartition("/")[2])
            answer.get(asked[-1], lambda handler: send(handler, content[asked[-1]]))(self)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/mnist"
        yield SimpleNamespace(content=content, answer=answer, asked=asked, url=url)
        server.shutdown()
        thread.join()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_command_says_what_it_does(mirror, tmp_path):
    folder = tmp_path / "new" / "mnist"
    ask = ("data", "fetch", "mnist", "--mirror", mirror.url, "--data-dir")
    result = works(*ask, folder)
    assert (result.stdout, mirror.asked, names_in(folder)) == ("", FILES, sorted(FILES))
    assert all((folder / name).read_bytes() == mirror.content[name] for name in FILES)
    assert len(load("mnist", folder).train) == 1000
    for said in (*(f"fetching {name}" for name in FILES), "4 files fetched",
                 f"nembp train --dataset mnist --data-dir {folder}"):  # fmt: skip
        assert said in result.stderr
    again = works(*ask, folder).stderr
    assert "nothing to fetch" in again
    assert "nembp: fetching" not in again
    assert works(*ask, tmp_path / "b", "--quiet").output == ""
    assert len(as_json(*ask, tmp_path / "c")["fetched"]) == 4
    ask = ("data", "fetch", "mnist", "--data-dir", tmp_path / "d", "--quiet", "--mirror")
    assert "--mirror URL" in fails(3, *ask, (tmp_path / "absent").as_uri())
    assert not list(tmp_path.glob("d/*-ubyte*"))  # what fails leaves nothing
    assert "http" in fails(2, *ask, "ftp://x")


def test_another_data_set_is_never_overwritten(mirror, tmp_path):
    write_idx(tmp_path / FILES[1], np.zeros(1000, dtype=np.uint8))
    kept = (tmp_path / FILES[1]).read_bytes()
    with pytest.raises(DataError, match=r"train-labels.*another data set.*another folder"):
        fetch_files("mnist", tmp_path, mirror.url)
    assert (tmp_path / FILES[1]).read_bytes() == kept
    (tmp_path / FILES[1]).rename(tmp_path / NAMES[1])  # gzip under a raw name is read too
    with pytest.raises(DataError, match="another data set"):
        fetch_files("mnist", tmp_path, mirror.url)
    (tmp_path / NAMES[1]).write_bytes(b"notes, not data")
    with pytest.raises(DataError, match=r"another data set.*move it away"):
        fetch_files("mnist", tmp_path, mirror.url)
    assert (tmp_path / NAMES[1]).read_bytes() == b"notes, not data"


def wrong_content(handler) -> None:
    content = bytearray(gzip.decompress((SAMPLE / LAST).read_bytes()))
    content[50] ^= 1
    send(handler, gzip.compress(bytes(content)))


GOOD = (SAMPLE / LAST).read_bytes()
BOMB = gzip.compress(bytes.fromhex("00000801 00989680") + bytes(10**7))
ANSWERS = {
    "not found": (lambda h: h.send_error(404), "404"),
    "wrong content": (wrong_content, "has MD5 .* unpacked, expected"),
    "a page": (lambda h: send(h, b"<html>login</html>"), "damaged gzip data: Not a gzipped"),
    "truncated, as announced": (lambda h: send(h, GOOD[:-9]), "damaged gzip data: .*ended before"),
    "short read": (lambda h: send(h, GOOD[:-9], len(GOOD)), "sent 121 of 130 announced bytes"),
    "more than MNIST's, not announced": (lambda h: send(h, bytes(10**6), None), "sends more than"),
    "trailing bytes": (lambda h: send(h, GOOD + b"junk"), "damaged gzip data"),
    "a bomb": (lambda h: send(h, BOMB), "has MD5 .* unpacked, expected"),
    "a wrong length": (lambda h: send(h, b"", "many"), "http://127"),
    "commands to a terminal": (
        lambda h: h.wfile.write(b"HTTP/1.0 500 \x1b]0;owned\x07\x9b31m\r\n\r\n"),
        "HTTP Error 500",
    ),
    "garbage": (lambda h: h.wfile.write(b"\x00\x01\x02\r\n\r\n"), "http://127"),
    "a closed connection": (lambda h: None, "http://127"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_mirror_that_misbehaves(mirror, tmp_path, case):
    answer, message = ANSWERS[case]
    mirror.answer[LAST] = answer
    (tmp_path / LAST).write_bytes(b"damaged")
    with pytest.raises(DataError, match=message) as caught:
        fetch_files("mnist", tmp_path, mirror.url)
    assert str(tmp_path / LAST) in str(caught.value)
    assert mirror.url in str(caught.value)
    assert ".part" not in str(caught.value)  # the temporary file is no one's concern
    assert "--mirror URL or NEMBP_MNIST_MIRROR" in str(caught.value)
    assert names_in(tmp_path) == sorted(FILES)  # no temporary file is left
    assert (tmp_path / LAST).read_bytes() == b"damaged"
    args = "data", "fetch", "mnist", "--data-dir", tmp_path, "--mirror", mirror.url, "--quiet"
    assert fails(3, *args).isprintable()
    (tmp_path / ".nembp-0123.part").write_bytes(b"of a killed process")
    mirror.answer.clear()
    assert [path.name for path in fetch_files("mnist", tmp_path, mirror.url)] == [LAST]
    assert names_in(tmp_path) == sorted(FILES)


def drip(handler, start: bytes, over: threading.Event) -> None:
    """Send a byte at a time, so slowly that a fetch would not end within the test."""
    with contextlib.suppress(OSError):  # the client had enough
        handler.wfile.write(start)
        while not over.wait(0.02):
            handler.wfile.write(b"a")
            handler.wfile.flush()
    handler.close_connection = True


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (None, "timed out"),
        (b"HTTP/1.0 200 OK\r\nX-Header: ", "sends less than 1,000 bytes per second"),
        (b"HTTP/1.0 200 OK\r\n\r\n", "sends less than 1,000 bytes per second"),
    ],
    ids=["silent", "a header that drips", "a body that drips"],
)
def test_slow_mirror_is_given_up(mirror, tmp_path, start, message):
    over = threading.Event()
    if start is None:
        mirror.answer[FILES[0]] = lambda h: over.wait() and None
    else:
        mirror.answer[FILES[0]] = lambda h: drip(h, start, over)
    try:
        with pytest.raises(DataError, match=message):
            fetch_files("mnist", tmp_path, mirror.url, timeout=0.2)
    finally:
        over.set()
    assert names_in(tmp_path) == []


def test_next_mirror_is_tried_and_that_of_the_environment(mirror, tmp_path, monkeypatch):
    gone = "http://127.0.0.1:1/"
    assert len(fetch_files("mnist", tmp_path, [gone, mirror.url])) == 4
    with pytest.raises(DataError, match=r"127\.0\.0\.1:1/.*127\.0\.0\.1:1/other"):
        fetch_files("mnist", tmp_path / "empty", [gone, gone + "other"])
    for number, url in enumerate((mirror.url + "/", SAMPLE.as_uri())):
        monkeypatch.setenv("NEMBP_MNIST_MIRROR", url)
        assert len(fetch_files("mnist", tmp_path / str(number))) == 4


BIN = "cifar-10-batches-bin"


@pytest.fixture(autouse=True)
def _small_files(monkeypatch):
    shrink(monkeypatch)


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Publish files as an archive with its checksum, and return the mirror's URL."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()

    def make(folder, name="cifar10", extra=(), without=(), resize=None):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w:gz") as archive:
            for path in sorted(folder.iterdir()):
                if path.name in without:
                    continue
                data = path.read_bytes()[: resize if path.name == "test_batch.bin" else None]
                add(archive, f"{folder.name}/{path.name}", data)
            for member, data in extra:
                add(archive, member, data)
        layout = (cifar.CIFAR10 if name == "cifar10" else cifar.CIFAR100)[0]
        (mirror / layout.archive).write_bytes(content.getvalue())
        digest = hashlib.md5(content.getvalue()).hexdigest()
        monkeypatch.setitem(fetch.CIFAR_MD5, name, digest)
        return mirror.as_uri()

    return make


def add(archive, name, data):
    member = tarfile.TarInfo(name) if isinstance(name, str) else name
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


@pytest.fixture
def source(tmp_path):
    return binary(tmp_path / "source" / BIN)


def test_what_is_fetched_is_what_is_read(publish, source, tmp_path):
    seen = []
    mirror = publish(source)
    folder = tmp_path / "new" / "data"
    files = fetch_files("cifar10", folder, mirror, lambda *progress: seen.append(progress))
    assert sorted(path.name for path in files) == sorted(os.listdir(source))
    assert os.listdir(folder) == [BIN]
    for path in files:
        assert path.read_bytes() == (source / path.name).read_bytes()
    assert np.array_equal(load("cifar10", folder).test.x, expected(["test_batch"]))
    assert seen[-1][0] == "cifar-10-binary.tar.gz"
    assert seen[-1][1] == seen[-1][2] > 10_000
    for place in (folder, folder / BIN):  # whole folders are left alone
        assert fetch_files("cifar10", place, "https://absent.invalid") == ()
    (folder / BIN / "test_batch.bin").write_bytes(b"")
    assert len(fetch_files("cifar10", folder, mirror)) == 7
    assert load("cifar10", folder).classes == tuple(CLASSES)


def test_members_elsewhere_are_never_written(publish, source, tmp_path):
    link = tarfile.TarInfo(f"{BIN}/readme")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hard = tarfile.TarInfo(f"{BIN}/test_batch.bin")
    hard.type, hard.linkname = tarfile.SYMTYPE, str(tmp_path / "victim")
    extra = [("../evil", b"x"), (f"{BIN}/../evil", b"x"), ("/tmp/nembp-evil", b"x"),
             (f"{BIN}/deeper/test_batch.bin", b"x"), ("test_batch.bin", b"x"),
             (f"{BIN}/readme.html", b"x"), (link, b""), (hard, b"")]  # fmt: skip
    mirror = publish(source, extra=extra)
    folder = tmp_path / "data"
    before = set(os.listdir(tmp_path))
    fetch_files("cifar10", folder, mirror)
    assert set(os.listdir(tmp_path)) == before | {"data"}
    assert sorted(os.listdir(folder / BIN)) == sorted(os.listdir(source))
    assert not os.path.exists("/tmp/nembp-evil")
    assert load("cifar10", folder).source == str(folder / BIN)


def test_what_is_not_the_published_archive_is_not_unpacked(publish, source, tmp_path, monkeypatch):
    mirror = publish(source)
    folder = tmp_path / "data"
    monkeypatch.setitem(fetch.CIFAR_MD5, "cifar10", "0" * 32)
    with pytest.raises(DataError, match=r"could not be fetched.*has MD5 .*expected 000.*--mirror"):
        fetch_files("cifar10", folder, mirror)
    with pytest.raises(DataError, match=r"could not be fetched.*No such file"):
        fetch_files("cifar100", folder, mirror)
    monkeypatch.setattr(fetch, "_MOST", 1000)
    with pytest.raises(DataError, match="sends more than 1000 bytes"):
        fetch_files("cifar10", folder, mirror)
    assert os.listdir(folder) == []
    with pytest.raises(ArchitectureError, match="expected a URL"):
        fetch_files("cifar10", folder, "here")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        fetch_files("cifar10", tmp_path / "file", mirror)


def test_archives_that_are_damaged_or_of_other_contents(publish, source, tmp_path, monkeypatch):
    for options, message in (
        ({"without": ("data_batch_3.bin",)}, "no data_batch_3.bin in the archive"),
        ({"resize": 100}, "test_batch.bin has 100 bytes"),
        ({"extra": [(f"{BIN}/batches.meta.txt", b"x" * 10**5)]}, "batches.meta.txt has 100000"),
    ):
        with pytest.raises(DataError, match=message):
            fetch_files("cifar10", tmp_path / message[:9], publish(source, **options))
    mirror, path = publish(source), tmp_path / "mirror" / "cifar-10-binary.tar.gz"
    whole = path.read_bytes()
    hole = whole[:5000] + bytes(99) + whole[5099:]
    for damaged in (whole[: len(whole) // 2], gzip.compress(whole), b"text", hole):
        path.write_bytes(damaged)
        monkeypatch.setitem(fetch.CIFAR_MD5, "cifar10", hashlib.md5(damaged).hexdigest())
        with pytest.raises(DataError, match=r"a damaged archive|in the archive"):
            fetch_files("cifar10", tmp_path / "other", mirror)


def test_the_mirror_of_the_environment(publish, source, tmp_path, monkeypatch):
    monkeypatch.setenv("NEMBP_CIFAR_MIRROR", publish(source))
    asked = ("data", "fetch", "cifar10", "--data-dir", tmp_path / "data")
    assert "7 files fetched; " in works(*asked).stderr
    again = works(*asked).stderr
    assert "nothing to fetch" in again
    assert "checksums" not in again
