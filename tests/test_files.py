"""Files are written whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading

import pytest

from nembp import files
from nembp.errors import DataError, OutputError
from nembp.files import remove_stale, replacing, write_atomically


def test_content_replaces_the_old_and_nothing_else_is_left(tmp_path, monkeypatch):
    path = tmp_path / "new" / "folder" / ("x" * 255)  # the longest possible name
    write_atomically(path, b"old, and longer")
    calls = []

    def note_fsync(descriptor):
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    def note_replace(source, target):
        assert os.path.getsize(source) == 3  # nothing is left in a buffer
        calls.append("rename")
        os.rename(source, target)

    monkeypatch.setattr(files.os, "fsync", note_fsync)
    monkeypatch.setattr(files.os, "replace", note_replace)
    write_atomically(str(path), b"new")
    assert calls == ["file", "rename", "folder"]
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == [path.name]
    (tmp_path / "plain").touch()  # permissions are the usual ones
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_links_stay_links_and_pipes_are_written_to(tmp_path):
    (tmp_path / "store").mkdir()
    target, link, pipe = tmp_path / "store" / "target", tmp_path / "link", tmp_path / "pipe"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path / "store") == ["target"]
    os.mkfifo(pipe)
    received = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, b"content")
    reader.join()
    assert received == [b"content"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_what_fails_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write_half(error):
        with replacing(path) as file:
            file.write(b"half")
            raise error

    for error in (DataError("of the body"), OutputError("of the body"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught:
            write_half(error)
        assert caught.value is error

    def fail(*_):
        raise OSError(28, "No space left on device")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(files.os, step, fail)
            with pytest.raises(OutputError, match=r"file: cannot be written \(No space left on"):
                write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["file/below", "folder", "nul\0"])
def test_an_impossible_path_is_named_with_the_remedy(tmp_path, name):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError) as caught:
        write_atomically(tmp_path / name, b"new")
    assert str(caught.value).startswith(f"{tmp_path / name}: cannot be written (")
    assert str(caught.value).endswith("Choose another path.")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path / "folder") == []


def test_concurrent_writers_never_mix(tmp_path):
    path = tmp_path / "file"
    contents = [bytes([value]) * 200_000 for value in range(4)]

    def write(content):
        for _ in range(5):
            write_atomically(path, content)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert not path.exists() or path.read_bytes() in contents
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert os.listdir(tmp_path) == ["file"]


def test_what_killed_writers_left_is_removed_and_what_is_being_written_stays(tmp_path):
    code = """if True:
        import sys, time
        from nembp.files import replacing
        with replacing(sys.argv[1]) as file:
            print("ready", flush=True)
            sys.stdin.read()
    """
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / name)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in ("killed", "living")
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    writers[0].kill()
    writers[0].communicate()
    assert len(os.listdir(tmp_path)) == 2
    remove_stale(tmp_path)
    assert len(os.listdir(tmp_path)) == 1
    writers[1].communicate("")
    assert os.listdir(tmp_path) == ["living"]
