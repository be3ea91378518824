"""Samples of a generator that a run left, and real samples sent there and back."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.adversarial.data import draw_latent
from nembp.backend import stream
from nembp.checkpoints import fitting
from nembp.datasets.sources import as_rows
from nembp.errors import ArchitectureError, DataError
from nembp.plotting.pictures import GREY, Film, scatter_frame, tile_images, write_images
from nembp.runs.gan import SHAPE, load_gan_data
from nembp.runs.gan_config import GanConfig
from nembp.runs.predicting import answer, config_of, load_run, write_arrays
from nembp.runs.run import Note, Path_, silent

SHOWN = 1000  # real points of a scatter plot
COLUMNS = 8  # of a sheet of pairs


def draw_samples(
    run: Path_,
    n: int,
    out: Path_ | None = None,
    *,
    reconstruct: bool = False,
    seed: int = 0,
    data_dir: Path_ | None = None,
    device: str = "cpu",
    note: Note = silent,
) -> dict[str, Any]:
    """Draw samples from a run's generator, or send real ones backward to z and forward again.

    With ``reconstruct``, which a bidirectional generator can, ``n`` real test samples (at most all)
    are chosen by ``seed``, which else is of z. ``out`` is a .png (a sheet of images, each real one
    above what came back; or points over real ones), .npy (samples) or .npz (``x``: samples, ``z``:
    what they were made of, ``real``).

    Of real samples ``error`` is the mean of ‖x' − x‖² over that of ‖x − mean x‖², 1 for a generator
    that knows nothing but the mean; and ``z_square`` the mean of z² (of z that the generator knows
    1, or ½ of a binary one).
    """
    model = load_run(run, device, note, player="generator")
    net, settings = model.net, model.settings
    with fitting(run):
        shape = tuple(int(side) for side in settings[SHAPE])
        if math.prod(shape) != net.outputs:
            raise ValueError(f"samples of shape {shape} are not of {net.outputs} outputs")
    config = config_of(model, GanConfig, run, data_dir)
    std, law = config.latent_std or 1.0, config.latent_law
    points = out is not None and Path(out).suffix.lower() == ".png" and len(shape) < 3
    real: NDArray[Any] = np.empty((0, net.outputs))
    if reconstruct and config.bidirectional not in ("generator", "both"):
        raise ArchitectureError(
            f"{os.fspath(run)}: its generator was trained in one direction (bidirectional "
            f"{config.bidirectional}), so it knows no way back; train one with --bidirectional "
            "generator"
        )
    if reconstruct or points:
        data = load_gan_data(config)
        if data.shape != shape:
            raise DataError(
                f"{data.source}: samples of shape {data.shape}, but the generator makes {shape}; "
                "expected the data of its training. Check --data-dir"
            )
        order = stream(seed, "reconstructed").permutation(len(data.test))[:n]
        order = order if reconstruct else np.arange(min(SHOWN, len(data.test)))
        real = as_rows(data.test.x)[order].reshape(len(order), -1)
    if reconstruct:
        z = answer(model, real, backward=True)
        z = np.round(z) if law == "binary" else z  # the most probable code
    else:
        z = std * draw_latent(n, net.inputs, seed, "binary" if law == "binary" else "gaussian")
    x = answer(model, z)
    if out is not None and Path(out).suffix.lower() != ".png":
        arrays = {"x": x, "real": real} if reconstruct else {"x": x}
        arrays = {name: part.reshape(-1, *shape) for name, part in arrays.items()}
        write_arrays(out, arrays["x"], arrays | {"z": z})
    x, real = (model.y_scaling.apply(part, np.float64) for part in (x, real))
    if points:
        film = Film()
        film.add(scatter_frame(real, x))
        film.write_picture(out or "")
    elif out is not None and Path(out).suffix.lower() == ".png":
        tiles = _pairs(shape, real, x)[np.newaxis] if reconstruct else x.reshape(-1, *shape)
        write_images(out, tiles, tiles.shape[1:])
    facts = {
        "run": os.path.abspath(run),
        "samples": len(x),
        "shape": list(shape),
        "seed": seed,
        "out": None if out is None else os.fspath(out),
    }
    if not reconstruct:
        return facts
    spread = np.square(real - real.mean(axis=0)).sum()
    error = float(np.square(x - real).sum() / spread) if spread > 0 else float("nan")
    return facts | {"error": error, "z_square": float(np.square(z).mean()) / std**2}


def _pairs(shape: tuple[int, ...], real: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
    """Lay out each real image above what came back, in lines of `COLUMNS`."""
    columns = min(COLUMNS, len(x))
    lines = -(-len(x) // columns)
    pairs = np.full((2, lines * columns, x.shape[1]), GREY / 255)
    pairs[0, : len(x)], pairs[1, : len(x)] = real, x
    rows = pairs.reshape(2, lines, columns, -1).swapaxes(0, 1).reshape(-1, x.shape[1])
    return tile_images(rows, shape, columns)
