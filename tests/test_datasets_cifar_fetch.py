"""CIFAR fetched from a mirror: checked before it is unpacked, and nothing else is written."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile

import numpy as np
import pytest
from cifar_files import NAMES, binary, expected, hundred, shrink
from command_line import fails, run

from nembp.datasets import cifar, cifar_fetch, fetch_cifar, load
from nembp.errors import ArchitectureError, DataError, OutputError

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
        monkeypatch.setitem(cifar_fetch.MD5, name, digest)
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
    files = fetch_cifar("cifar10", folder, mirror, lambda *progress: seen.append(progress))
    assert sorted(path.name for path in files) == sorted(os.listdir(source))
    assert os.listdir(folder) == [BIN]
    for path in files:
        assert path.read_bytes() == (source / path.name).read_bytes()
    assert np.array_equal(load("cifar10", folder).test.x, expected(["test_batch"]))
    assert seen[-1][0] == "cifar-10-binary.tar.gz"
    for place in (folder, folder / BIN):  # whole folders are left alone
        assert fetch_cifar("cifar10", place, "https://absent.invalid") == ()
    (folder / BIN / "test_batch.bin").write_bytes(b"")
    assert len(fetch_cifar("cifar10", folder, mirror)) == 7
    assert load("cifar10", folder).classes == tuple(NAMES)


def test_cifar100_is_fetched_too(publish, tmp_path):
    (tmp_path / "source").mkdir()
    hundred(tmp_path / "source", "binary")
    mirror = publish(tmp_path / "source" / "cifar-100-binary", "cifar100")
    fetch_cifar("cifar100", tmp_path / "data", mirror)
    assert len(load("cifar100", tmp_path / "data").classes) == 100


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
    fetch_cifar("cifar10", folder, mirror)
    assert set(os.listdir(tmp_path)) == before | {"data"}
    assert sorted(os.listdir(folder / BIN)) == sorted(os.listdir(source))
    assert not os.path.exists("/tmp/nembp-evil")
    assert load("cifar10", folder).source == str(folder / BIN)


def test_what_is_not_the_published_archive_is_not_unpacked(publish, source, tmp_path, monkeypatch):
    mirror = publish(source)
    folder = tmp_path / "data"
    monkeypatch.setitem(cifar_fetch.MD5, "cifar10", "0" * 32)
    with pytest.raises(DataError, match=r"could not be fetched.*has MD5 .*expected 000.*--mirror"):
        fetch_cifar("cifar10", folder, mirror)
    with pytest.raises(DataError, match=r"could not be fetched.*No such file"):
        fetch_cifar("cifar100", folder, mirror)
    monkeypatch.setattr(cifar_fetch, "_MOST", 1000)
    with pytest.raises(DataError, match="sends more than 1000 bytes"):
        fetch_cifar("cifar10", folder, mirror)
    assert os.listdir(folder) == []
    with pytest.raises(ArchitectureError, match="expected a URL"):
        fetch_cifar("cifar10", folder, "here")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        fetch_cifar("cifar10", tmp_path / "file", mirror)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"without": ("data_batch_3.bin",)}, "no data_batch_3.bin in the archive"),
        ({"resize": 100}, "test_batch.bin has 100 bytes"),
        ({"extra": [(f"{BIN}/batches.meta.txt", b"x" * 10**5)]}, "batches.meta.txt has 100000"),
    ],
)
def test_archives_of_other_contents(publish, source, tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        fetch_cifar("cifar10", tmp_path / "data", publish(source, **options))


DAMAGE = {
    "half": lambda content: content[: len(content) // 2],
    "twice packed": gzip.compress,
    "text": lambda content: b"text",
    "hole": lambda content: content[:5000] + bytes(99) + content[5099:],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_archives(publish, source, tmp_path, monkeypatch, damage):
    mirror = publish(source)
    path = tmp_path / "mirror" / "cifar-10-binary.tar.gz"
    path.write_bytes(damage(path.read_bytes()))
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setitem(cifar_fetch.MD5, "cifar10", digest)
    with pytest.raises(DataError, match=r"a damaged archive|in the archive"):
        fetch_cifar("cifar10", tmp_path / "data", mirror)


def test_the_published_checksums():
    assert cifar_fetch.MD5 == {
        "cifar10": "c32a1d4ab5d03f1284b67883e8d87530",
        "cifar100": "03b5dce01913d631647c71ecec9e9cb8",
    }


def test_a_user_fetches(publish, source, tmp_path, monkeypatch):
    monkeypatch.setenv("NEMBP_CIFAR_MIRROR", publish(source))
    folder = tmp_path / "data"
    asked = ("data", "fetch", "cifar10", "--data-dir", folder)
    first = run(*asked)
    assert first.exit_code == 0, first.output
    assert "fetching cifar-10-binary.tar.gz" in first.stderr
    assert "7 files fetched" in first.stderr
    assert "checksums verified" in first.stderr
    assert f"nembp train --dataset cifar10 --data-dir {folder}" in first.stderr
    again = run(*asked).stderr
    assert "nothing to fetch" in again
    assert "checksums" not in again
    assert "could not be fetched" in fails(3, "data", "fetch", "cifar100", "--data-dir", folder)
