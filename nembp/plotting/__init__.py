"""Pictures: by Pillow, and by matplotlib where ``nembp[figures]`` is installed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nembp.errors import NembpError
from nembp.files import replacing


@contextmanager
def figure(path: str | os.PathLike[str], style: Any = None, **options: Any) -> Iterator[Any]:
    """Yield a matplotlib figure, without a display, and write it as PNG; ``style``: rc settings."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NembpError(
            "figures need matplotlib; install it with `pip install nembp[figures]`"
        ) from error
    with rc_context(style):
        made = Figure(**options)
        yield made
        with replacing(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of letters that the font lacks
            made.savefig(file, format="png", metadata={"Software": None})
