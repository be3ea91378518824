from __future__ import annotations

import contextlib
import gzip
import http.server
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nembp.datasets import builtin as mnist_module
from nembp.datasets import download, fetch_mnist, read_idx, write_idx
from nembp.datasets.arrays import NAMES
from nembp.datasets.builtin import idx_md5
from nembp.errors import ArchitectureError, DataError, OutputError

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "mnist-sample"
FILES = [f"{name}.gz" for name in NAMES]
LAST = FILES[3]


class Mirror:
    """A local web server whose answer to each file a test may replace."""

    def __init__(self) -> None:
        self.content = {name: (SAMPLE / name).read_bytes() for name in FILES}
        self.answer: dict[str, Callable[[http.server.BaseHTTPRequestHandler], None]] = {}
        self.asked: list[str] = []
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rpartition("/")[2]
                mirror.asked.append(name)
                if name in mirror.answer:
                    mirror.answer[name](self)
                else:
                    send(self, mirror.content[name])

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/mnist"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


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
    """A mirror of the sample, which takes MNIST's place in the table of checksums."""
    arrays = [read_idx(SAMPLE / name) for name in FILES]
    sizes = [len(gzip.decompress((SAMPLE / name).read_bytes())) for name in FILES]
    contents = [Content(idx_md5(x), size) for x, size in zip(arrays, sizes, strict=True)]
    monkeypatch.setattr(mnist_module, "CONTENTS", dict(zip(NAMES, contents, strict=True)))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    mirror = Mirror()
    yield mirror
    mirror.close()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_fetches_what_is_not_there(mirror, tmp_path):
    folder = tmp_path / "new" / "mnist"
    reports: list[tuple[str, int, int | None]] = []
    paths = fetch_mnist(folder, mirror.url, lambda *report: reports.append(report))
    assert [path.name for path in paths] == FILES == mirror.asked
    assert names_in(folder) == sorted(FILES)
    for name in FILES:
        assert (folder / name).read_bytes() == mirror.content[name]
        last = [report for report in reports if report[0] == name][-1]
        assert last[1] == last[2] == len(mirror.content[name])
    mnist = mnist_module.load_mnist(mnist_module.Request(data_dir=folder))
    assert (mnist.name, len(mnist.train)) == ("mnist", 1000)


def test_keeps_what_is_there_and_valid(mirror, tmp_path):
    (tmp_path / FILES[0]).write_bytes(mirror.content[FILES[0]])
    write_idx(tmp_path / "train-labels.idx1-ubyte", read_idx(SAMPLE / FILES[1]))
    (tmp_path / FILES[2]).write_bytes(mirror.content[FILES[2]][:-100])  # an interrupted copy
    assert [path.name for path in fetch_mnist(tmp_path, mirror.url)] == FILES[2:]
    assert mirror.asked == FILES[2:]
    assert (tmp_path / FILES[2]).read_bytes() == mirror.content[FILES[2]]
    assert fetch_mnist(tmp_path, mirror.url) == ()
    assert mirror.asked == FILES[2:]


def test_another_data_set_is_never_overwritten(mirror, tmp_path):
    write_idx(tmp_path / FILES[1], np.zeros(1000, dtype=np.uint8))
    kept = (tmp_path / FILES[1]).read_bytes()
    with pytest.raises(DataError, match=r"train-labels.*another data set.*another folder"):
        fetch_mnist(tmp_path, mirror.url)
    assert (tmp_path / FILES[1]).read_bytes() == kept
    (tmp_path / FILES[1]).rename(tmp_path / NAMES[1])  # gzip under a raw name is read too
    with pytest.raises(DataError, match="another data set"):
        fetch_mnist(tmp_path, mirror.url)
    (tmp_path / NAMES[1]).write_bytes(b"notes, not data")
    with pytest.raises(DataError, match=r"not an IDX file.*Move it away"):
        fetch_mnist(tmp_path, mirror.url)
    assert (tmp_path / NAMES[1]).read_bytes() == b"notes, not data"


def test_a_smaller_file_of_another_set_is_not_replaced_as_damaged(mirror, tmp_path):
    write_idx(tmp_path / FILES[3], np.zeros(5, dtype=np.float64))
    with pytest.raises(DataError, match="another data set"):
        fetch_mnist(tmp_path, mirror.url)


def wrong_content(handler) -> None:
    content = bytearray(gzip.decompress((SAMPLE / LAST).read_bytes()))
    content[50] ^= 1
    send(handler, gzip.compress(bytes(content)))


ANSWERS = {
    "not found": (lambda h: h.send_error(404), "404"),
    "server error": (lambda h: h.send_error(500), "500"),
    "wrong content": (wrong_content, "has MD5 .* unpacked, expected"),
    "a page": (lambda h: send(h, b"<html>login</html>"), "not MNIST's t10k-labels.*not an IDX"),
    "nothing": (lambda h: send(h, b""), "not MNIST's"),
    "truncated, as announced": (
        lambda h: send(h, (SAMPLE / LAST).read_bytes()[:-9]),
        "not MNIST's .*ends early",
    ),
    "short read": (
        lambda h: send(h, (SAMPLE / LAST).read_bytes()[:-9], (SAMPLE / LAST).stat().st_size),
        "sent 121 of 130 announced bytes",
    ),
    "more than MNIST's, announced": (lambda h: send(h, bytes(10**6)), "sends more than"),
    "more than MNIST's, not announced": (
        lambda h: send(h, bytes(10**6), None),
        "sends more than",
    ),
    "more than announced": (
        lambda h: send(h, (SAMPLE / LAST).read_bytes() + b"junk", 50),
        "not MNIST's .*ends early",
    ),
    "trailing bytes": (
        lambda h: send(h, (SAMPLE / LAST).read_bytes() + b"junk"),
        "not MNIST's .*trailing bytes",
    ),
    "a bomb": (
        lambda h: send(h, gzip.compress(bytes.fromhex("00000801 00989680") + bytes(10**7))),
        "not MNIST's .*declares shape",
    ),
    "a wrong length": (
        lambda h: send(h, b"", "many"),
        "http://127",
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
        fetch_mnist(tmp_path, mirror.url)
    assert str(tmp_path / LAST) in str(caught.value)
    assert mirror.url in str(caught.value)
    assert ".part" not in str(caught.value)  # the temporary file is no one's concern
    assert "--mirror URL or NEMBP_MNIST_MIRROR" in str(caught.value)
    assert names_in(tmp_path) == sorted(FILES)  # no temporary file is left
    assert (tmp_path / LAST).read_bytes() == b"damaged"
    mirror.answer.clear()
    assert [path.name for path in fetch_mnist(tmp_path, mirror.url)] == [LAST]


def test_content_of_unknown_length_is_taken(mirror, tmp_path):
    reports: list[tuple[str, int, int | None]] = []
    mirror.answer[LAST] = lambda h: send(h, mirror.content[LAST], None)
    fetch_mnist(tmp_path, mirror.url, lambda *report: reports.append(report))
    assert reports[-1] == (LAST, len(mirror.content[LAST]), None)


def test_slow_mirror_is_given_up(mirror, tmp_path):
    over = threading.Event()
    mirror.answer[FILES[0]] = lambda h: over.wait(5) and None
    try:
        with pytest.raises(DataError, match="timed out"):
            fetch_mnist(tmp_path, mirror.url, timeout=0.2)
    finally:
        over.set()
    assert names_in(tmp_path) == []


def test_next_mirror_is_tried(mirror, tmp_path):
    gone = "http://127.0.0.1:1/"
    assert len(fetch_mnist(tmp_path, [gone, mirror.url])) == 4
    with pytest.raises(DataError, match=r"127\.0\.0\.1:1/.*127\.0\.0\.1:1/other"):
        fetch_mnist(tmp_path / "empty", [gone, gone + "other"])


def test_mirror_from_the_environment(mirror, tmp_path, monkeypatch):
    monkeypatch.setenv("NEMBP_MNIST_MIRROR", mirror.url + "/")
    assert len(fetch_mnist(tmp_path)) == 4
    folder = SAMPLE.as_uri()
    monkeypatch.setenv("NEMBP_MNIST_MIRROR", folder)
    assert len(fetch_mnist(tmp_path / "copy")) == 4


@pytest.mark.parametrize("mirror_url", ["ftp://example.org/", "example.org/mnist", ""])
def test_mirror_that_is_no_url(tmp_path, mirror_url):
    with pytest.raises(ArchitectureError, match="starts with https://"):
        fetch_mnist(tmp_path, mirror_url)
    assert names_in(tmp_path) == []


def test_folder_that_cannot_be_written(mirror, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"):
        fetch_mnist(tmp_path / "file", mirror.url)


def test_full_disk_is_not_blamed_on_the_mirror():
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with (
        open("/dev/full", "wb", 0) as full,
        pytest.raises(OutputError, match="/dev/full: cannot be written"),
    ):
        download.receive(_Response(b"x" * 10**6), full, "url", 10**7, None)


class _Response:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.headers: dict[str, str] = {}

    def read(self, amount: int) -> bytes:
        piece, self.content = self.content[:amount], self.content[amount:]
        return piece
