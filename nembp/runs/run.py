"""The life of a run: begun in its folder, trained, saved whatever ends it, and summed up."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from nembp.backend import Backend, Precision, get_backend, gpu_seems_present
from nembp.errors import DeviceError, DeviceMemoryError, DivergenceError
from nembp.runs.folder import RunFolder
from nembp.runs.options import Config, to_toml

Row = dict[str, Any]
Listener = Callable[[dict[str, Any]], Any]
Note = Callable[[str], None]
SAVING_SHARE = 0.01  # of a run's time, at most, that saving on the way takes


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


class Signals:
    """SIGINT, SIGTERM and SIGHUP while there is something to save; a context.

    The first one raises KeyboardInterrupt, at the end of a block where they are `held`; then they
    are held, since the run is saved now. A third one ends the process. Signals that do not raise
    KeyboardInterrupt when the context begins are left alone.
    """

    def __init__(self) -> None:
        self.count, self.hold = 0, False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
                number = getattr(signal, name, None)
                if number and signal.getsignal(number) is signal.default_int_handler:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        self.count += 1
        if self.count > 2:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if self.count == 1 and not self.hold:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let nothing interrupt a block of code."""
        before, self.hold = self.count, True
        yield
        self.hold = False
        if self.count > before:
            raise KeyboardInterrupt


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
    """

    title: ClassVar[str]  # of config.toml
    understood: tuple[str, ...] = ()  # what was guessed of the data
    saved: ClassVar[tuple[str, str]]  # the file of what was learned, and its name in words

    def __init__(
        self, config: Config, folder: RunFolder, environment: Row, note: Note, began: float
    ) -> None:
        self.config, self.folder, self.environment = config, folder, environment
        self.note, self.began = note, began
        self.signals = Signals()
        self._saved_at, self._cost = -math.inf, 0.0

    # -- what a kind of run is ---------------------------------------------------------------------
    @abstractmethod
    def plan(self) -> Row:
        """Describe what is about to happen."""

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
    def save_at_times(self) -> None:
        """Save on the way: at once the first time, then as seldom as `SAVING_SHARE` asks."""
        began = time.perf_counter()
        if began - self._saved_at >= self._cost / SAVING_SHARE:
            with self.signals.held():
                self.save()
            self._saved_at = time.perf_counter()
            self._cost = self._saved_at - began

    def run(self, on_start: Listener | None, on_end: Listener | None) -> Row:
        """Train and leave a complete folder; return the summary.

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
        with self.signals:
            self.folder.begin(to_toml(self.config, comment))
            if on_start is not None:
                on_start(self.plan())
            try:
                status = self.train()
            except DivergenceError as caught:
                status, error = "diverged", caught
            except KeyboardInterrupt as caught:
                status, error = "interrupted", caught
            except Exception as caught:  # noqa: BLE001  the disk, the memory, a file cut short, a bug
                status, error = "failed", caught
            self.signals.hold = True
            summary, kept, error = self._finish(status, error)
            if on_end is not None:
                on_end(summary)
            if error is None and self.signals.count:
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
            self.folder.write_summary(summary)
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
            told = KeyboardInterrupt(f"interrupted after {noun} {count}; {left}{of}")
        else:
            if kept:
                self.note(f"{left}the last good {what}")
            return error
        told.__cause__ = error
        return told
