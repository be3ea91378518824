"""Samples of a generator that a run left, and real samples sent there and back."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.adversarial.animation import Film, Frame, scatter_frame
from nembp.adversarial.data import draw_latent
from nembp.adversarial.settings import LatentLaw
from nembp.backend import stream
from nembp.datasets import Dataset
from nembp.datasets.sources import as_rows
from nembp.engine.network import Network
from nembp.errors import ArchitectureError, DataError
from nembp.files import write_atomically
from nembp.plotting.pictures import GREY, write_images
from nembp.runs.gan_players import Generator, load_generator
from nembp.runs.gan_preparation import load_gan_data
from nembp.runs.preparation import Note, choose_backend

__all__ = ["draw_samples", "generate", "reconstruct_samples"]

ROWS = 1024  # samples at a time
SHOWN = 1000  # real points of a scatter plot
COLUMNS = 8  # of a sheet of pairs


def generate(net: Network, z: NDArray[Any]) -> NDArray[Any]:
    """Run one direction of a player on rows of the host, a block at a time."""
    parts = [
        net.backend.to_numpy(net.predict(z[start : start + ROWS]))
        for start in range(0, len(z), ROWS)
    ]
    return np.concatenate(parts)


def draw_samples(
    run: str | os.PathLike[str],
    n: int,
    out: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    note: Note = lambda text: None,
) -> dict[str, Any]:
    """Draw samples from a run's generator.

    Parameters
    ----------
    run : path
        A run folder of `run_gan`, or the file of its generator.
    n : int
        How many.
    out : path, optional
        Where to write them: .png (a sheet of images, or points over real ones), .npy (samples) or
        .npz (``x``: samples, ``z``: what they were made of).
    seed : int
        Of z.
    data_dir : path, optional
        Where the real points of a scatter plot lie; by default where they lay in training.
    device, note : str, callable
        As in `nembp.runs.preparation.prepare`.

    Returns
    -------
    dict
        JSON values: ``run``, ``samples``, ``shape``, ``seed``, ``out``.

    Raises
    ------
    DataError, DeviceError
        If there is no such run, it is damaged, or the device cannot be used.
    OutputError
        If they cannot be written.
    """
    generator = load_generator(run, choose_backend(device, note))
    z = _deviation(generator) * draw_latent(n, generator.net.inputs, seed, _law(generator))
    x = generate(generator.net, z)
    if out is not None:
        if Path(out).suffix.lower() == ".png":
            _write_picture(out, generator, x, data_dir)
        else:
            _write_arrays(out, x=generator.raw(x), z=z)
    return _facts(run, generator, n, seed, out)


def reconstruct_samples(
    run: str | os.PathLike[str],
    n: int,
    out: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    note: Note = lambda text: None,
) -> dict[str, Any]:
    """Send real test samples backward to z and forward again, which a bidirectional generator can.

    Parameters
    ----------
    run, out, data_dir, device, note
        As in `draw_samples`; a .png has each real image above what came back, an .npz ``real``,
        ``x`` and ``z``.
    n : int
        How many; all test samples where there are fewer.
    seed : int
        Of the choice of them.

    Returns
    -------
    dict
        As `draw_samples`, with ``error``: the mean of ‖x' − x‖² over that of ‖x − mean x‖², 1 for a
        generator that knows nothing but the mean; and ``z_square``, the mean of z² (of z that
        the generator knows 1, or ½ of a binary one).

    Raises
    ------
    ArchitectureError
        If the run's generator was not trained backward.
    DataError, OutputError
        As in `draw_samples`.
    """
    generator = load_generator(run, choose_backend(device, note))
    way = generator.config.bidirectional
    if way not in ("generator", "both"):
        raise ArchitectureError(
            f"{os.fspath(run)}: its generator was trained in one direction (bidirectional {way}), "
            "so it knows no way back; train one with --bidirectional generator"
        )
    data = _data(generator, data_dir)
    order = stream(seed, "reconstructed").permutation(len(data.test))[:n]
    real = data.x_scaling.apply(as_rows(data.test.x)[order], np.float64).reshape(len(order), -1)
    z = generate(generator.net.reversed, real)
    if _law(generator) == "binary":
        z = np.round(z)  # the most probable code
    x = generate(generator.net, z)
    if out is not None:
        if Path(out).suffix.lower() == ".png":
            _write_pairs(out, generator, real, x)
        else:
            _write_arrays(out, x=generator.raw(x), z=z, real=generator.raw(real))
    spread = np.square(real - real.mean(axis=0)).sum()
    error = float(np.square(x - real).sum() / spread) if spread > 0 else float("nan")
    facts = {"error": error, "z_square": float(np.square(z).mean()) / _deviation(generator) ** 2}
    return _facts(run, generator, len(order), seed, out) | facts


def _law(generator: Generator) -> LatentLaw:
    return "binary" if generator.config.latent_law == "binary" else "gaussian"


def _deviation(generator: Generator) -> float:
    return generator.config.latent_std or 1.0


def _facts(
    run: str | os.PathLike[str],
    generator: Generator,
    n: int,
    seed: int,
    out: str | os.PathLike[str] | None,
) -> dict[str, Any]:
    return {
        "run": os.path.abspath(run),
        "samples": n,
        "shape": list(generator.shape),
        "seed": seed,
        "out": None if out is None else os.fspath(out),
    }


def _data(generator: Generator, data_dir: str | os.PathLike[str] | None) -> Dataset:
    config = generator.config
    if data_dir is not None:
        config = config.replace({"data_dir": os.fspath(data_dir)})
    data = load_gan_data(config)
    if data.shape != generator.shape:
        raise DataError(
            f"{data.source}: samples of shape {data.shape}, but the generator makes "
            f"{generator.shape}; expected the data of its training. Check --data-dir"
        )
    return data


def _write_picture(
    out: str | os.PathLike[str],
    generator: Generator,
    x: NDArray[Any],
    data_dir: str | os.PathLike[str] | None,
) -> None:
    if generator.is_image:
        write_images(out, generator.pixels(x), generator.shape)
        return
    data = _data(generator, data_dir)
    real = data.x_scaling.apply(as_rows(data.test.x)[:SHOWN], np.float64).reshape(-1, x.shape[1])
    _write_frame(out, scatter_frame(real, x))


def _write_pairs(
    out: str | os.PathLike[str], generator: Generator, real: NDArray[Any], x: NDArray[Any]
) -> None:
    if not generator.is_image:
        _write_frame(out, scatter_frame(real, x))
        return
    from nembp.plotting.pictures import tile_images

    columns = min(COLUMNS, len(x))
    lines = -(-len(x) // columns)
    pairs = np.full((2, lines * columns, x.shape[1]), GREY / 255)
    pairs[0, : len(x)], pairs[1, : len(x)] = real, x
    rows = pairs.reshape(2, lines, columns, -1).swapaxes(0, 1).reshape(-1, x.shape[1])
    tiles = tile_images(rows, generator.shape, columns)
    write_images(out, tiles[np.newaxis], tiles.shape)


def _write_frame(out: str | os.PathLike[str], frame: Frame) -> None:
    film = Film()
    film.add(frame)
    film.write_picture(out)


def _write_arrays(out: str | os.PathLike[str], **arrays: Any) -> None:
    buffer = io.BytesIO()
    if Path(out).suffix.lower() == ".npy":
        np.save(buffer, arrays["x"], allow_pickle=False)
    else:
        np.savez(buffer, **arrays)
    write_atomically(out, buffer.getvalue())
