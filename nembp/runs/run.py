"""The life of a run: begun in its folder, trained, saved whatever ends it, and summed up."""

from __future__ import annotations

import contextlib
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from nembp.backend import Backend, Precision, get_backend, gpu_seems_present
from nembp.checkpoints import (
    Checkpoints,
    check_state,
    differences,
    fitting,
    load_checkpoint,
)
from nembp.errors import (
    ArchitectureError,
    DataError,
    DeviceError,
    DeviceMemoryError,
    DivergenceError,
)
from nembp.runs.folder import CHECKPOINT, CONFIG, SUMMARY, RunFolder
from nembp.runs.options import C, Config, to_toml
from nembp.threads import threads as limit

Row = dict[str, Any]
Listener = Callable[[dict[str, Any]], Any]
Note = Callable[[str], None]
PICTURES = "picture", "animation"  # keys of the summary
OF_THE_MACHINE = (
    "device",
    "threads",
    "data_dir",
    "max_bytes",
)  # settings that may differ on resuming


def silent(text: str) -> None:
    """Take a note, and tell nobody."""


def choose_backend(device: str, note: Note = silent, precision: Precision = "float32") -> Backend:
    """Return the backend of a device name; say why where "auto" leaves a GPU unused.

    Raises
    ------
    DeviceError
        If "gpu" is asked for and cannot be used.
    """
    if device != "auto":
        backend = get_backend(device, precision)
    else:
        try:
            backend = get_backend("gpu", precision)
        except (DeviceError, DeviceMemoryError) as error:
            if gpu_seems_present():
                note(f"computing on the CPU: {error}")
            backend = get_backend("cpu")
    if precision != "float32" and backend.name == "cpu":
        note(f"precision {precision}: without effect on the CPU")
    return backend


def open_run(
    folder: RunFolder, kind: type[C], changes: Mapping[str, Any], note: Note
) -> tuple[C, Row, Row]:
    """Return the configuration of the run to go on with, its checkpoint's header, and the state.

    ``changes`` are settings that were given anew.

    Raises
    ------
    ArchitectureError
        If they change what a run that goes on must keep.
    DataError
        If the checkpoint is damaged, or another command's.
    """
    path = folder.file(CHECKPOINT)
    header, state = load_checkpoint(path)
    if header.get("command") != kind.command:
        raise DataError(
            f"{path}: is of `nembp {header.get('command')}`; expected a run of "
            f"`nembp {kind.command}`"
        )
    with fitting(path):
        config = kind(**header["config"])
        begun = int(vars(config)[kind.length])
    old, options = vars(config), kind.options()
    changes = {name: options[name].check(name, value) for name, value in changes.items()}
    for name, value in changes.items():
        word = name.replace("_", "-")
        if name == kind.length and value < old[name]:
            raise ArchitectureError(
                f"{word} can only be raised on resuming: {folder.path} was begun for {old[name]}, "
                f"got {value}"
            )
        if name not in (kind.length, *OF_THE_MACHINE) and value != old[name]:
            raise ArchitectureError(
                f"{word} is {old[name]} in {folder.path} and cannot change on resuming, got "
                f"{value}; leave it out, or begin a run of its own (--config "
                f"{folder.path / CONFIG})"
            )
    config = config.replace(changes)
    length, schedule = getattr(config, kind.length), vars(config)["schedule"]
    if length > begun and schedule != "constant":
        note(f"the {schedule} schedule of the learning rate is now that of {length} {kind.length}")
    return config, header, state


def resume_in(
    run: str | os.PathLike[str],
    kind: type[C],
    files: Sequence[str],
    make: Callable[[C, int, RunFolder], Run],
    changes: Mapping[str, Any] | None,
    note: Note,
    on_start: Listener | None,
    on_end: Listener | None,
) -> Row:
    """Go on with a run in its folder, by what ``make`` returns for its configuration.

    The errors are those of `open_run` and `Run.run`.
    """
    with RunFolder(run, "", files=files, resume=True) as folder:
        config, header, state = open_run(folder, kind, changes or {}, note)
        summary = _finished(folder, config, note)
        if summary is None:
            with limit(vars(config)["threads"]) as threads:
                training = make(config, threads, folder)
                training.take_up(header, state)
                return training.run(on_start, on_end)
        folder.end()  # where it was stopped before it took another's place
    if on_end is not None:
        on_end(summary)
    return summary


def _finished(folder: RunFolder, config: Config, note: Note) -> Row | None:
    """Return the summary of a run that came to its end, and say that it did; None if it did not."""
    length = config.length
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        summary: Row = json.loads(folder.file(SUMMARY).read_text(encoding="utf-8"))
        early, done = summary["status"] == "stopped early", f"{summary[length]} {length}"
        whole = summary["status"] == "finished" and summary[length] == vars(config)[length]
        if (early or whole) and PICTURES[0] in summary:
            more = f"; more {length} would go on with it" if whole else ""
            note(f"{folder.path} has {summary['status']} after {done}{more}")
            return summary
    return None


class Run(ABC):
    """A run in progress: what `nembp train` and `nembp gan` have in common.

    Parameters
    ----------
    config : Config
        Complete.
    folder : RunFolder
        That it alone writes into.
    environment : dict
        Where it is trained; see `nembp.checkpoints.environment`.
    note : callable
        Told what the user should know and is no error.
    began : float
        `time.perf_counter` when it was called for.
    every : float, optional
        Seconds between checkpoints within an epoch; see `nembp.checkpoints.Checkpoints`.
    """

    title: ClassVar[str]  # of config.toml
    understood: tuple[str, ...] = ()  # what was guessed of the data
    fingerprint: str | None = None  # of the data
    start: str | None = None  # the run whose parameters were its first
    saved: ClassVar[tuple[str, str]]  # the file of what was learned, and its name in words

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        environment: Row,
        note: Note,
        began: float,
        every: float | None,
    ) -> None:
        self.config, self.folder, self.environment = config, folder, environment
        self.note, self.began, self.every = note, began, every
        self.checkpoints: Checkpoints  # while it trains
        self.rows = list[Row]()  # of the metrics

    # -- what a kind of run is ---------------------------------------------------------------------
    @abstractmethod
    def plan(self) -> Row:
        """Describe what is about to happen."""

    @abstractmethod
    def state(self) -> Row:
        """Return all that the rest of the run depends on; see `nembp.checkpoints`."""

    @abstractmethod
    def resume(self, state: Row) -> None:
        """Go on from what `state` returned; ``rows`` are those of the metrics so far."""

    @abstractmethod
    def train(self) -> str:
        """Train to the end, and return the status: "finished" or "stopped early"."""

    @abstractmethod
    def restore(self, status: str) -> bool:
        """Go back to the last good state; return whether there is one."""

    @abstractmethod
    def save(self) -> None:
        """Write what was learned."""

    @abstractmethod
    def summarize(self, *, kept: bool) -> Row:
        """Return the scores and facts of the summary."""

    @abstractmethod
    def draw(self) -> dict[str, str]:
        """Draw the pictures; return the name of each by its key in the summary."""

    @property
    @abstractmethod
    def progress(self) -> tuple[str, int]:
        """What its rows count, and how far it came: ("epoch", 3)."""

    # -- what all of them do -----------------------------------------------------------------------
    def after_row(self, row: Row, *, last: bool) -> None:
        """Add a row to the metrics, and save: the first one, the last, and as time goes by."""
        self.folder.append(row)
        if last:
            self.checkpoints.write()  # the model is saved at the end
        elif self.checkpoints.are_due or not self.folder.file(self.saved[0]).exists():
            began = time.perf_counter()
            self.save()
            self.checkpoints.write(began)

    def _state(self) -> Row:
        return self.state() | {"wall_seconds": time.perf_counter() - self.began}

    def take_up(self, header: Row, state: Row) -> None:
        """Go on from a checkpoint; say where its bits are not those of this place.

        Raises
        ------
        DataError
            If it is of other data or another version.
        """
        path = self.folder.file(CHECKPOINT)
        if header.get("data") != self.fingerprint:
            raise DataError(
                f"{self.folder.path}: the data are no longer those that it was trained on; "
                "expected the same files. Put them back, or train anew"
            )
        with fitting(path):
            try:
                check_state(state, self._state())
            except TypeError as error:
                then, now = header["config"]["device"], vars(self.config)["device"]
                if then == now:
                    raise
                raise DataError(
                    f"{path}: was begun on the {then}, whose random numbers cannot go on on the "
                    f"{now}; use --device {then}, or train anew"
                ) from error
            self.resume(state)
            self.began -= state["wall_seconds"]
            differ = differences(header["environment"], self.environment)
            self.start = header["start"]
        if differ:
            self.note(f"its last bits may differ from those of a run in one go: {differ}")

    def run(self, on_start: Listener | None, on_end: Listener | None) -> Row:
        """Train, or go on, and leave a complete folder; return the summary.

        Raises
        ------
        DivergenceError, KeyboardInterrupt, Exception
            Whatever ended the training, once the last good state was saved and summed up.
        """
        comment = (
            f"{self.title} {self.environment['nembp']}; `nembp {self.config.command} --config` "
            "with this file\nrepeats it, bit for bit with the same build of NumPy and number of "
            "threads."
        )
        comment = "\n".join([comment, *self.understood])
        error: BaseException | None = None
        header = {
            "command": self.config.command,
            "config": self.config.as_dict(),
            "environment": self.environment,
            "data": self.fingerprint,
            "start": self.start,
        }
        path = self.folder.file(CHECKPOINT)
        self.checkpoints = Checkpoints(path, header, self._state, self.every)
        with self.checkpoints:
            self.folder.begin(to_toml(self.config, comment), self.rows)
            if on_start is not None:
                on_start(self.plan() | {"done": self.progress[1]})
            try:
                self.checkpoints.write()
                status = self.train()
            except DivergenceError as caught:
                status, error = "diverged", caught
            except KeyboardInterrupt as caught:
                status, error = "interrupted", caught
            except Exception as caught:  # noqa: BLE001  the disk, the memory, a file cut short, a bug
                status, error = "failed", caught
            summary, kept, error = self._finish(status, error)
            if on_end is not None:
                on_end(summary)
            if error is None and self.checkpoints.signals:
                raise KeyboardInterrupt(f"interrupted; {self.folder.path} is complete")
        if error is not None:
            raise self._told(error, kept)
        return summary

    def _finish(
        self, status: str, error: BaseException | None
    ) -> tuple[Row, bool, BaseException | None]:
        """Save, sum up, draw; an older run keeps its place if nothing was learned."""
        kept = self.restore(status)
        if self.folder.replaces and not self.progress[1]:
            kept = False
        if kept:
            try:
                self.save()
            except Exception as failed:  # noqa: BLE001  a full disk: what was saved before stays
                error = error if status == "failed" else failed
                status = "failed"
                kept = not self.folder.replaces and self.folder.file(self.saved[0]).exists()
        summary: Row = {"status": status, "run": str(self.folder.path.resolve())}
        summary |= self.summarize(kept=kept)
        if status == "failed":
            summary["error"] = f"{type(error).__name__}: {error}"
        try:
            # a summary that names no pictures is of a run that something stopped at its very end
            self.folder.write_summary({key: summary[key] for key in summary if key not in PICTURES})
            if kept:
                summary |= self._pictures()
            self.folder.write_summary(summary)
            self.folder.end(keep=kept)
        except OSError as failed:
            error = error or failed
        return summary, kept, error

    def _pictures(self) -> Row:
        try:
            pictures = self.draw()
        except Exception as failed:  # noqa: BLE001  the run itself is complete
            self.note(f"no picture was drawn: {failed}")
            return {}
        return {key: str((self.folder.path / name).resolve()) for key, name in pictures.items()}

    def _go_on(self) -> str:
        """Say how, where a checkpoint is left."""
        if not (self.folder.path / CHECKPOINT).exists():
            return ""
        return f"; `nembp {self.config.command} --resume {self.folder.path}` goes on"

    def _told(self, error: BaseException, kept: bool) -> BaseException:
        """Return what ended the training, with what is left of it."""
        name, what = self.saved
        told: BaseException
        left = f"{self.folder.path / name} holds " if kept else "nothing was learned"
        if self.folder.replaces:
            left += f"; {self.folder.path} keeps the run that was there"
        if isinstance(error, DivergenceError):
            told = DivergenceError(f"{error}; {left}{f'the last good {what}' if kept else ''}")
        elif isinstance(error, KeyboardInterrupt):
            noun, count = self.progress
            of = f"its {what}" if kept else ""
            told = KeyboardInterrupt(f"interrupted after {noun} {count}; {left}{of}{self._go_on()}")
        else:
            if kept:
                self.note(f"{left}the last good {what}")
            return error
        told.__cause__ = error
        return told
