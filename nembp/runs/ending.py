"""How a run ends: finished, stopped early, diverged or interrupted, with its summary either way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nembp.errors import DivergenceError

__all__ = ["Ending"]


@dataclass
class Ending:
    """What ended a training; raised again once the run is saved and summed up.

    Attributes
    ----------
    status : {"finished", "stopped early", "diverged", "interrupted"}
        As the summary says it.
    error : DivergenceError, optional
        That ended it.
    """

    status: str = "finished"
    error: DivergenceError | None = None

    @classmethod
    def of(cls, training: Callable[[], object]) -> Ending:
        """Call ``training`` and say how it ended."""
        try:
            training()
        except DivergenceError as error:
            return cls("diverged", error)
        except KeyboardInterrupt:
            return cls("interrupted")
        return cls()

    def reraise(self, file: Path, what: str, *, done: str, learned: bool) -> None:
        """Raise what ended the training, and say what is left of it; nothing if all went well.

        Parameters
        ----------
        file, what : Path, str
            Where what was learned is kept, and its name: ``"model"``.
        done : str
            How far the training came: ``"epoch 3"``.
        learned : bool
            Whether that is far enough for the file to be there.

        Raises
        ------
        DivergenceError, KeyboardInterrupt
            With these words.
        """
        if self.error is not None:
            raise DivergenceError(
                f"{self.error}; {file} holds the last good {what}"
            ) from self.error
        if self.status == "interrupted":
            kept = f"{file} holds its {what}" if learned else "nothing was learned"
            raise KeyboardInterrupt(f"interrupted after {done}; {kept}")
