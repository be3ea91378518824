"""The life of a run: begun in its folder or gone on with, saved whatever ends it, and summed up."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn

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
OF_DATA = "shape", "classes", "target_names", "x_scaling", "y_scaling", "pixel_scaling", "is_image"


def silent(told: Any) -> None:
    """Take a note, and tell nobody."""


def choose_backend(device: str, note: Note = silent, precision: Precision = "float32") -> Backend:
    """Return the backend of a device name; say why where "auto" leaves a GPU unused."""
    try:
        backend = get_backend("gpu" if device == "auto" else device, precision)
    except (DeviceError, DeviceMemoryError) as error:
        if device != "auto":
            raise
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


class Run:
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
    # methods of a kind of run
    prepare: Any  # config, complete, data and net of (config, note, start); errors are here
    about: Any  # what is about to be trained
    restore: Any  # go back to the last good state after (status); return whether there is one
    save: Any  # write what was learned
    summarize: Any  # the scores and facts of the summary
    draw: Any  # draw the pictures; return the name of each by its key in the summary

    def __init__(self, prepared: Any, threads: int, folder: RunFolder, told: Told) -> None:
        self.config = prepared.config.replace({"threads": threads})
        self.prepared, self.data, self.net = prepared, prepared.data, prepared.net
        self.folder, self.told = folder, told
        self.environment = environment(self.net)
        self.checkpoints: Checkpoints  # while it trains
        self.trainer: Any  # of the engine, or of `nembp.adversarial`
        self.rows = list[Row]()  # of the metrics
        self.start: str | None = None  # the run whose parameters were its first
        self.done = 0  # epochs, or iterations, that are kept
        self.stopped_early = False  # whether the training ended by itself before its length

    @classmethod
    def begin(
        cls, config: Any, out_dir: Path_ | None = None, *, force: bool = False,
        start: Path_ | None = None, **told: Any,
    ) -> Row:  # fmt: skip
        """Train as configured, in a new folder or, by ``force``, in place of the run in it.

        ``start`` is a run whose players are the first ones; the rest are fields of `Told`.
        """
        listeners = Told(**told)
        prefix = "" if config.command == "train" else f"{config.command}-"
        name = f"{prefix}{config.dataset}-seed{config.seed or 0}"
        with RunFolder(out_dir, name, files=cls.files, force=force) as folder:
            return cls._run(config, folder, listeners, start)

    @classmethod
    def go_on(cls, run: Path_, changes: Mapping[str, Any] | None = None, **told: Any) -> Row:
        """Go on with a run from its checkpoint, as if nothing had stopped it.

        The rest is, bit for bit, that of a run in one go with the same build and number of threads;
        elsewhere a note says so. ``changes`` may raise the length, and hold settings that are of
        the machine. A run that is finished is left as it is.
        """
        listeners = Told(**told)
        with RunFolder(run, "", files=cls.files, resume=True) as folder:
            header, state = load_checkpoint(folder.file(CHECKPOINT))
            config = cls._changed(folder, header, changes or {}, listeners.on_note)
            summary = _finished(folder, config, listeners.on_note)
            if summary is None:
                return cls._run(config, folder, listeners, None, header, state)
            folder.end()  # where it was stopped before it took another's place
        listeners.on_end(summary)
        return summary

    @classmethod
    def _run(
        cls, config: Any, folder: RunFolder, told: Told, start: Path_ | None, *checkpoint: Row
    ) -> Row:
        with limit(config.threads):
            prepared = cls.prepare(config, told.on_note, start)
        with limit(prepared.config.threads) as threads:
            run = cls(prepared, threads, folder, told)
            run.start = None if start is None else os.path.abspath(start)
            if checkpoint:
                run.take_up(*checkpoint)
            return run.run()

    @classmethod
    def _changed(
        cls, folder: RunFolder, header: Row, changes: Mapping[str, Any], note: Note
    ) -> Config:
        """Return the configuration to go on with of the run that a checkpoint's header is of."""
        path, kind, length = folder.file(CHECKPOINT), cls.kind, cls.kind.length
        if header.get("command") != kind.command:
            raise DataError(
                f"{path}: is of `nembp {header.get('command')}`; expected a run of "
                f"`nembp {kind.command}`"
            )
        with fitting(path):
            old = vars(kind(**header["config"]))
            begun = int(old[length])
        config = kind(**(old | dict(changes)))
        new = vars(config)
        for name in changes:
            word = name.replace("_", "-")
            if name == length and new[name] < begun:
                raise ArchitectureError(
                    f"{word} can only be raised on resuming: {folder.path} was begun for {begun}, "
                    f"got {new[name]}"
                )
            if name not in (length, *OF_THE_MACHINE) and new[name] != old[name]:
                raise ArchitectureError(
                    f"{word} is {old[name]} in {folder.path} and cannot change on resuming, got "
                    f"{new[name]}; leave it out, or begin a run of its own (--config "
                    f"{folder.path / CONFIG})"
                )
        if new[length] > begun and new["schedule"] != "constant":
            note(
                f"the {new['schedule']} schedule of the learning rate is now that of {new[length]} "
                f"{length}"
            )
        return config

    # -- while it trains ---------------------------------------------------------------------------
    def state(self) -> Row:
        """Return all that the rest of the run depends on; see `nembp.checkpoints`."""
        seconds = time.perf_counter() - self.told.began
        return {"trainer": self.trainer.state(), "wall_seconds": seconds}

    def resume(self, state: Row) -> None:
        """Go on from what `state` returned; ``rows`` are those of the metrics so far."""
        self.trainer.resume(state["trainer"])
        self.told.began -= state["wall_seconds"]

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
                check_state(state, self.state())
            except TypeError as error:
                then, now = header["config"]["device"], vars(self.config)["device"]
                if then == now:
                    raise
                raise DataError(
                    f"{path}: was begun on the {then}, whose random numbers cannot go on on the "
                    f"{now}; use --device {then}, or train anew"
                ) from error
            self.resume(state)
            differ = differences(header["environment"], self.environment)
            self.start = header["start"]
        if differ:
            self.told.on_note(f"its last bits may differ from those of a run in one go: {differ}")

    def after_row(self, row: Row, *, last: bool) -> bool:
        """Add a row to the metrics, save (the first, the last, and as time goes by), and tell."""
        self.folder.append(row)
        if last:
            self.checkpoints.write()  # the model is saved at the end
        elif self.checkpoints.are_due or not self.folder.file(self.saved[0]).exists():
            began = time.perf_counter()
            self.save()
            self.checkpoints.write(began)
        return bool(self.told.on_row(row))

    def run(self) -> Row:
        """Train, or go on, and leave a complete folder; return the summary."""
        command, facts = self.config.command, self.config.as_dict()
        error: BaseException | None = None
        comment = (
            f"{self.title} {self.environment['nembp']}; `nembp {command} --config` "
            "with this file\nrepeats it, bit for bit with the same build of NumPy and number of "
            "threads."
        )
        header = {
            "command": command, "config": facts, "environment": self.environment,
            "data": self.data.fingerprint, "start": self.start,
        }  # fmt: skip
        plan = {
            "run": str(self.folder.path), "shape": list(self.data.shape),
            "device": self.net.backend.describe(), "done": self.done,
        }  # fmt: skip
        path = self.folder.file(CHECKPOINT)
        self.checkpoints = Checkpoints(path, header, self.state, self.told.checkpoint_every)
        with self.checkpoints:
            text = to_toml(self.config, "\n".join([comment, *self.data.notes]))
            self.folder.begin(text, self.rows)
            self.told.on_start(facts | plan | self.about())
            try:
                self.checkpoints.write()
                self.trainer.after_step = self.checkpoints.after_step
                self.trainer.run()
                status = "stopped early" if self.stopped_early else "finished"
            except (Exception, KeyboardInterrupt) as caught:  # noqa: BLE001  the disk, the memory, a bug
                ends = {DivergenceError: "diverged", KeyboardInterrupt: "interrupted"}
                status, error = ends.get(type(caught), "failed"), caught
            summary, kept, error = self._finish(status, error)
            self.told.on_end(summary)
            if error is None and self.checkpoints.signals:
                raise KeyboardInterrupt(f"interrupted; {self.folder.path} is complete")
        if error is not None:
            self._raise(error, kept=kept)
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
            "status": status, "run": str(self.folder.path.resolve()),
            **self.summarize(kept=kept), self.config.length: self.done,
            "wall_seconds": time.perf_counter() - self.told.began,
            "device": self.net.backend.describe(), "dataset": self.data.name,
            "seed": self.config.seed, "config": self.config.as_dict(),
            "environment": self.environment,
        }  # fmt: skip
        if status == "failed":
            summary["error"] = f"{type(error).__name__}: {error}"
        try:
            # a summary that names no pictures is of a run that something stopped at its very end
            self.folder.write_summary(summary)
            summary |= dict.fromkeys(self.pictures)
            try:
                for key, name in self.draw().items() if kept else ():
                    summary[key] = str((self.folder.path / name).resolve())
            except Exception as failed:  # noqa: BLE001  the run itself is complete
                self.told.on_note(f"no picture was drawn: {failed}")
            self.folder.write_summary(summary)
            self.folder.end(keep=kept)
        except OSError as failed:
            error = error or failed
        return summary, kept, error

    def _raise(self, error: BaseException, *, kept: bool) -> NoReturn:
        """Raise what ended the training, with what is left of it and how to go on."""
        path, (name, what), left = self.folder.path, self.saved, "nothing was learned"
        interrupted = isinstance(error, KeyboardInterrupt)
        if kept:
            left = f"{path / name} holds {'its' if interrupted else 'the last good'} {what}"
        if self.folder.replaces:
            left += f"; {path} keeps the run that was there"
        if isinstance(error, DivergenceError):
            raise DivergenceError(f"{error}; {left}") from error
        if interrupted:
            if (path / CHECKPOINT).exists():
                left += f"; `nembp {self.config.command} --resume {path}` goes on"
            noun = self.config.length.removesuffix("s")
            raise KeyboardInterrupt(f"interrupted after {noun} {self.done}; {left}") from error
        if kept:
            self.told.on_note(left)
        raise error

    def model(self, net: Network, settings: Row, **changes: Any) -> Model:
        """Return what a file holds of a network, of the data and of the run."""
        data, settings = self.data, self.config.as_dict() | settings
        if data.feature_names:
            settings["feature_names"] = list(data.feature_names)
        fields = {name: getattr(data, name) for name in OF_DATA} | {"centroids": None} | changes
        about = {"dataset": data.name, "settings": settings, "environment": self.environment}
        return Model(net=net, **about, **fields)


def _finished(folder: RunFolder, config: Config, note: Note) -> Row | None:
    """Return the summary of a run that came to its end, and say that it did; None if it did not."""
    length = config.length
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        summary: Row = json.loads(folder.file(SUMMARY).read_text(encoding="utf-8"))
        status, done = summary["status"], summary[length]
        whole = status == "finished" and done == vars(config)[length]
        if (status == "stopped early" or whole) and "picture" in summary:
            more = f"; more {length} would go on with it" if whole else ""
            note(f"{folder.path} has {status} after {done} {length}{more}")
            return summary
    return None
