"""The life of a run: begun in its folder or gone on with, saved whatever ends it, and summed up."""

from __future__ import annotations

import contextlib
import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from nembp.backend import Backend, Precision, get_backend, gpu_seems_present
from nembp.checkpoints import (
    Checkpoints,
    Model,
    check_state,
    differences,
    environment,
    fitting,
    load_checkpoint,
)
from nembp.engine.network import Network
from nembp.errors import (
    ArchitectureError,
    DataError,
    DeviceError,
    DeviceMemoryError,
    DivergenceError,
)
from nembp.runs.folder import CHECKPOINT, CONFIG, SUMMARY, RunFolder
from nembp.runs.options import Config, to_toml
from nembp.threads import threads as limit

Row = dict[str, Any]
Note = Callable[[str], None]
Path_ = str | os.PathLike[str]
OF_THE_MACHINE = "device", "threads", "data_dir", "max_bytes"  # may differ on resuming


def silent(told: Any) -> None:
    """Take a note, and tell nobody."""


def choose_backend(device: str, note: Note = silent, precision: Precision = "float32") -> Backend:
    """Return the backend of a device name; say why where "auto" leaves a GPU unused."""
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


@dataclass
class Told:
    """Who is told of a run, and the seconds between its checkpoints (see `Checkpoints`)."""

    on_start: Callable[[Row], Any] = silent  # the plan
    on_row: Callable[[Row], Any] = silent  # a row of the metrics; True ends the training
    on_end: Callable[[Row], Any] = silent  # the summary
    on_note: Note = silent  # what the user should know and is no error
    checkpoint_every: float | None = None
    began: float = field(default_factory=time.perf_counter)


class Run(ABC):
    """What `nembp train` and `nembp gan` have in common.

    `begin` and `go_on` train, and leave a complete folder whatever ends the training:
    ``config.toml`` (repeats the run), ``metrics.jsonl`` (a row at a time), what was learned and
    ``checkpoint.npz`` (both saved as it goes), ``summary.json``, and last the pictures. They return
    the summary. What ended the training is raised again, once the last good state is saved and
    summed up; before the first step, the folder is left as it was.
    """

    kind: ClassVar[type[Config]]
    title: ClassVar[str]  # of config.toml
    files: ClassVar[tuple[str, ...]]  # that it may write
    saved: ClassVar[tuple[str, str]]  # the file of what was learned, and its name in words
    pictures: ClassVar[tuple[str, ...]] = ("picture",)  # keys of the summary

    def __init__(self, prepared: Any, threads: int, folder: RunFolder, told: Told) -> None:
        self.config = prepared.config.replace({"threads": threads})
        self.data, self.net, self.folder, self.told = prepared.data, prepared.net, folder, told
        self.environment = environment(self.net)
        self.checkpoints: Checkpoints  # while it trains
        self.trainer: Any  # of the engine, or of `nembp.adversarial`
        self.rows = list[Row]()  # of the metrics
        self.start: str | None = None  # the run whose parameters were its first

    @classmethod
    def begin(
        cls,
        config: Any,
        out_dir: Path_ | None = None,
        *,
        force: bool = False,
        start: Path_ | None = None,
        **told: Any,
    ) -> Row:
        """Train as configured, in a new folder or, by ``force``, in place of the run in it.

        ``start`` is a run whose players are the first ones; the rest are fields of `Told`.
        """
        listeners = Told(**told)
        prefix = "" if config.command == "train" else f"{config.command}-"
        name = f"{prefix}{config.dataset}-seed{config.seed or 0}"
        with RunFolder(out_dir, name, files=cls.files, force=force) as folder:
            return cls._run(config, folder, listeners, start, None)

    @classmethod
    def go_on(cls, run: Path_, changes: Mapping[str, Any] | None = None, **told: Any) -> Row:
        """Go on with a run from its checkpoint, as if nothing had stopped it.

        The rest is, bit for bit, that of a run in one go with the same build and number of threads;
        elsewhere a note says so. ``changes`` may raise the length, and hold settings that are of
        the machine. A run that is finished is left as it is.
        """
        listeners = Told(**told)
        with RunFolder(run, "", files=cls.files, resume=True) as folder:
            config, *checkpoint = cls._open(folder, changes or {}, listeners.on_note)
            summary = _finished(folder, config, listeners.on_note)
            if summary is None:
                return cls._run(config, folder, listeners, None, checkpoint)
            folder.end()  # where it was stopped before it took another's place
        listeners.on_end(summary)
        return summary

    @classmethod
    def _run(
        cls, config: Any, folder: RunFolder, told: Told, start: Path_ | None, checkpoint: Any
    ) -> Row:
        with limit(config.threads):
            prepared = cls.prepare(config, told.on_note, start)
        with limit(prepared.config.threads) as threads:
            run = cls(prepared, threads, folder, told)
            run.start = None if start is None else os.path.abspath(start)
            if checkpoint is not None:
                run.take_up(*checkpoint)
            return run.run()

    @classmethod
    def _open(cls, folder: RunFolder, changes: Mapping[str, Any], note: Note) -> tuple[Any, ...]:
        """Return the configuration of the run to go on with, its checkpoint's header, and state."""
        path, kind = folder.file(CHECKPOINT), cls.kind
        header, state = load_checkpoint(path)
        if header.get("command") != kind.command:
            raise DataError(
                f"{path}: is of `nembp {header.get('command')}`; expected a run of "
                f"`nembp {kind.command}`"
            )
        with fitting(path):
            old = vars(kind(**header["config"]))
            begun = int(old[kind.length])
        options = kind.options()
        changes = {name: options[name].check(name, value) for name, value in changes.items()}
        for name, value in changes.items():
            word = name.replace("_", "-")
            if name == kind.length and value < begun:
                raise ArchitectureError(
                    f"{word} can only be raised on resuming: {folder.path} was begun for {begun}, "
                    f"got {value}"
                )
            if name not in (kind.length, *OF_THE_MACHINE) and value != old[name]:
                raise ArchitectureError(
                    f"{word} is {old[name]} in {folder.path} and cannot change on resuming, got "
                    f"{value}; leave it out, or begin a run of its own (--config "
                    f"{folder.path / CONFIG})"
                )
        config = kind(**(old | changes))
        length, schedule = vars(config)[kind.length], vars(config)["schedule"]
        if length > begun and schedule != "constant":
            note(f"the {schedule} schedule of the learning rate is now that of {length} "
                 f"{kind.length}")  # fmt: skip
        return config, header, state

    # -- what a kind of run is ---------------------------------------------------------------------
    @classmethod
    @abstractmethod
    def prepare(cls, config: Any, note: Note, start: Path_ | None) -> Any:
        """Return ``config``, complete, ``data`` and ``net`` of what is trained; errors are here."""

    @property
    @abstractmethod
    def done(self) -> int:
        """How many epochs, or iterations, are kept."""

    @abstractmethod
    def about(self) -> Row:
        """Describe what is about to be trained."""

    @property
    def stopped_early(self) -> bool:
        """Whether the training ended by itself before its length."""
        return False

    def state(self) -> Row:
        """Return all that the rest of the run depends on; see `nembp.checkpoints`."""
        return {"trainer": self.trainer.state()}

    def resume(self, state: Row) -> None:
        """Go on from what `state` returned; ``rows`` are those of the metrics so far."""
        self.trainer.resume(state["trainer"])

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

    # -- what all of them do -----------------------------------------------------------------------
    def model(self, net: Network, settings: Row, **changes: Any) -> Model:
        """Return what a file holds of a network, of the data and of the run."""
        data, settings = self.data, self.config.as_dict() | settings
        if data.feature_names:
            settings["feature_names"] = list(data.feature_names)
        names = ("shape", "classes", "target_names", "x_scaling", "y_scaling", "pixel_scaling",
                 "is_image")  # fmt: skip
        fields = {name: getattr(data, name) for name in names} | {"centroids": None} | changes
        return Model(
            net=net,
            dataset=data.name,
            settings=settings,
            environment=self.environment,
            **fields,
        )

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
        return self.state() | {"wall_seconds": time.perf_counter() - self.told.began}

    def take_up(self, header: Row, state: Row) -> None:
        """Go on from a checkpoint; say where its bits are not those of this place."""
        path = self.folder.file(CHECKPOINT)
        if not self.data.matches(str(header.get("data"))):
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
            self.told.began -= state["wall_seconds"]
            differ = differences(header["environment"], self.environment)
            self.start = header["start"]
        if differ:
            self.told.on_note(f"its last bits may differ from those of a run in one go: {differ}")

    def run(self) -> Row:
        """Train, or go on, and leave a complete folder; return the summary."""
        command, facts = self.config.command, self.config.as_dict()
        comment = (
            f"{self.title} {self.environment['nembp']}; `nembp {command} --config` "
            "with this file\nrepeats it, bit for bit with the same build of NumPy and number of "
            "threads."
        )
        comment = "\n".join([comment, *self.data.notes])
        header = {
            "command": command,
            "config": facts,
            "environment": self.environment,
            "data": self.data.fingerprint,
            "start": self.start,
        }
        plan = {
            "run": str(self.folder.path),
            "shape": list(self.data.shape),
            "device": self.net.backend.describe(),
            "done": self.done,
        }
        error: BaseException | None = None
        path = self.folder.file(CHECKPOINT)
        self.checkpoints = Checkpoints(path, header, self._state, self.told.checkpoint_every)
        with self.checkpoints:
            self.folder.begin(to_toml(self.config, comment), self.rows)
            self.told.on_start(facts | plan | self.about())
            try:
                self.checkpoints.write()
                self.trainer.after_step = self.checkpoints.after_step
                self.trainer.run()
                status = "stopped early" if self.stopped_early else "finished"
            except DivergenceError as caught:
                status, error = "diverged", caught
            except KeyboardInterrupt as caught:
                status, error = "interrupted", caught
            except Exception as caught:  # noqa: BLE001  the disk, the memory, a file cut short, a bug
                status, error = "failed", caught
            summary, kept, error = self._finish(status, error)
            self.told.on_end(summary)
            if error is None and self.checkpoints.signals:
                raise KeyboardInterrupt(f"interrupted; {self.folder.path} is complete")
        if error is not None:
            raise self._ending(error, kept)
        return summary

    def _finish(
        self, status: str, error: BaseException | None
    ) -> tuple[Row, bool, BaseException | None]:
        """Save, sum up, draw; an older run keeps its place if nothing was learned."""
        kept = self.restore(status) and not (self.folder.replaces and not self.done)
        if kept:
            try:
                self.save()
            except Exception as failed:  # noqa: BLE001  a full disk: what was saved before stays
                error = error if status == "failed" else failed
                status = "failed"
                kept = not self.folder.replaces and self.folder.file(self.saved[0]).exists()
        summary: Row = {
            "status": status,
            "run": str(self.folder.path.resolve()),
            **self.summarize(kept=kept),
            self.config.length: self.done,
            "wall_seconds": time.perf_counter() - self.told.began,
            "device": self.net.backend.describe(),
            "dataset": self.data.name,
            "seed": vars(self.config)["seed"],
            "config": self.config.as_dict(),
            "environment": self.environment,
        }
        if status == "failed":
            summary["error"] = f"{type(error).__name__}: {error}"
        try:
            # a summary that names no pictures is of a run that something stopped at its very end
            self.folder.write_summary(summary)
            summary |= dict.fromkeys(self.pictures) | (self._pictures() if kept else {})
            self.folder.write_summary(summary)
            self.folder.end(keep=kept)
        except OSError as failed:
            error = error or failed
        return summary, kept, error

    def _pictures(self) -> Row:
        try:
            pictures = self.draw()
        except Exception as failed:  # noqa: BLE001  the run itself is complete
            self.told.on_note(f"no picture was drawn: {failed}")
            return {}
        return {key: str((self.folder.path / name).resolve()) for key, name in pictures.items()}

    def _ending(self, error: BaseException, kept: bool) -> BaseException:
        """Return what ended the training, with what is left of it and how to go on."""
        name, what = self.saved
        told: BaseException
        left = f"{self.folder.path / name} holds " if kept else "nothing was learned"
        if self.folder.replaces:
            left += f"; {self.folder.path} keeps the run that was there"
        if isinstance(error, DivergenceError):
            told = DivergenceError(f"{error}; {left}{f'the last good {what}' if kept else ''}")
        elif isinstance(error, KeyboardInterrupt):
            left += f"its {what}" if kept else ""
            if (self.folder.path / CHECKPOINT).exists():
                left += f"; `nembp {self.config.command} --resume {self.folder.path}` goes on"
            noun = self.config.length.removesuffix("s")
            told = KeyboardInterrupt(f"interrupted after {noun} {self.done}; {left}")
        else:
            if kept:
                self.told.on_note(f"{left}the last good {what}")
            return error
        told.__cause__ = error
        return told


def _finished(folder: RunFolder, config: Config, note: Note) -> Row | None:
    """Return the summary of a run that came to its end, and say that it did; None if it did not."""
    length = config.length
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        summary: Row = json.loads(folder.file(SUMMARY).read_text(encoding="utf-8"))
        early, done = summary["status"] == "stopped early", f"{summary[length]} {length}"
        whole = summary["status"] == "finished" and summary[length] == vars(config)[length]
        if (early or whole) and "picture" in summary:
            more = f"; more {length} would go on with it" if whole else ""
            note(f"{folder.path} has {summary['status']} after {done}{more}")
            return summary
    return None
