"""Samples of a generator that a run left, and real samples sent there and back."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.adversarial.data import draw_latent
from nembp.adversarial.settings import LatentLaw
from nembp.backend import Backend, stream
from nembp.checkpoints import Model
from nembp.datasets import Dataset
from nembp.datasets.sources import as_rows
from nembp.engine.network import Network
from nembp.errors import ArchitectureError, DataError
from nembp.plotting.animation import Film, scatter_frame
from nembp.plotting.pictures import GREY, tile_images, write_images
from nembp.runs.gan import GENERATOR, SHAPE, load_gan_data, load_player
from nembp.runs.gan_config import GanConfig
from nembp.runs.predicting import in_blocks, write_arrays
from nembp.runs.run import Note, choose_backend, silent

SHOWN = 1000  # real points of a scatter plot
COLUMNS = 8  # of a sheet of pairs
Path_ = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Generator:
    """A generator that was trained."""

    model: Model  # from z to raw samples
    shape: tuple[int, ...]  # of one sample; (height, width, channels) of images
    config: GanConfig  # of its run

    @property
    def net(self) -> Network:
        """Its network."""
        return self.model.net

    @property
    def law(self) -> LatentLaw:
        """Law of z."""
        return "binary" if self.config.latent_law == "binary" else "gaussian"

    @property
    def std(self) -> float:
        """Standard deviation of a Gaussian z."""
        return self.config.latent_std or 1.0

    def raw(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return samples in the network's units, shape (n, features), in raw ones (n, *shape)."""
        return np.asarray(self.model.y_scaling.invert(x)).reshape(-1, *self.shape)

    def data(self, data_dir: Path_ | None) -> Dataset:
        """Load the data of its run, by default from where it lay."""
        config = self.config
        if data_dir is not None:
            config = config.replace({"data_dir": os.fspath(data_dir)})
        data = load_gan_data(config)
        if data.shape != self.shape:
            raise DataError(
                f"{data.source}: samples of shape {data.shape}, but the generator makes "
                f"{self.shape}; expected the data of its training. Check --data-dir"
            )
        return data


def load_generator(run: Path_, device: str | Backend = "cpu") -> Generator:
    """Load the generator of a run folder, or of a file of one."""
    model = load_player(run, GENERATOR, device)
    settings = model.settings
    try:
        shape = tuple(int(side) for side in settings[SHAPE])
        known = {name: settings[name] for name in GanConfig.options() if name in settings}
        config = GanConfig(**({"dataset": model.dataset} | known))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{os.fspath(run)}: no generator of this version of nembp ({error}); expected a run "
            "of `nembp gan`"
        ) from error
    if int(np.prod(shape)) != model.net.outputs:
        raise DataError(
            f"{os.fspath(run)}: samples of shape {shape} do not fit {model.net.outputs} outputs"
        )
    return Generator(model, shape, config)


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

    ``run`` is a run folder of `run_gan`, or the file of its generator. With ``reconstruct``, which
    a bidirectional generator can, ``n`` real test samples (at most all) are chosen by ``seed``,
    which else is of z; ``data_dir`` is where they lie, by default where they lay in training.
    ``out`` is a .png (a sheet of images, each real one above what came back; or points over real
    ones), .npy (samples) or .npz (``x``: samples, ``z``: what they were made of, ``real``).

    Returns JSON values: ``run``, ``samples``, ``shape``, ``seed``, ``out``. Of real samples also
    ``error``: the mean of ‖x' − x‖² over that of ‖x − mean x‖², 1 for a generator that knows
    nothing but the mean; and ``z_square``, the mean of z² (of z that the generator knows 1, or ½
    of a binary one).
    """
    generator = load_generator(run, choose_backend(device, note))
    net, std, shape, real = generator.net, generator.std, generator.shape, None
    if reconstruct:
        trained = generator.config.bidirectional
        if trained not in ("generator", "both"):
            raise ArchitectureError(
                f"{os.fspath(run)}: its generator was trained in one direction (bidirectional "
                f"{trained}), so it knows no way back; train one with --bidirectional generator"
            )
        data = generator.data(data_dir)
        real = _test_rows(data, stream(seed, "reconstructed").permutation(len(data.test))[:n])
        z = in_blocks(net.reversed, real)
        z = np.round(z) if generator.law == "binary" else z  # the most probable code
    else:
        z = std * draw_latent(n, net.inputs, seed, generator.law)
    x = in_blocks(net, z)
    if out is not None and Path(out).suffix.lower() != ".png":
        arrays = {"x": generator.raw(x), "z": z}
        if real is not None:
            arrays["real"] = generator.raw(real)
        write_arrays(out, arrays["x"], arrays)
    elif out is not None and len(shape) < 3:
        if (points := real) is None:
            data = generator.data(data_dir)
            points = _test_rows(data, np.arange(min(SHOWN, len(data.test))))
        film = Film()
        film.add(scatter_frame(points, x))
        film.write_picture(out)
    elif out is not None and real is not None:
        tiles = _pairs(shape, real, x)
        write_images(out, tiles[np.newaxis], tiles.shape)
    elif out is not None:
        write_images(out, x.reshape(-1, *shape), shape)
    facts = {
        "run": os.path.abspath(run),
        "samples": len(x),
        "shape": list(shape),
        "seed": seed,
        "out": None if out is None else os.fspath(out),
    }
    if real is None:
        return facts
    spread = np.square(real - real.mean(axis=0)).sum()
    error = float(np.square(x - real).sum() / spread) if spread > 0 else float("nan")
    return facts | {"error": error, "z_square": float(np.square(z).mean()) / std**2}


def _test_rows(data: Dataset, index: NDArray[Any]) -> NDArray[Any]:
    """Return test samples as rows in the network's units."""
    x = data.x_scaling.apply(as_rows(data.test.x)[index], np.float64)
    return x.reshape(len(index), -1)


def _pairs(shape: tuple[int, ...], real: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
    """Lay out each real image above what came back, in lines of `COLUMNS`."""
    columns = min(COLUMNS, len(x))
    lines = -(-len(x) // columns)
    pairs = np.full((2, lines * columns, x.shape[1]), GREY / 255)
    pairs[0, : len(x)], pairs[1, : len(x)] = real, x
    rows = pairs.reshape(2, lines, columns, -1).swapaxes(0, 1).reshape(-1, x.shape[1])
    return tile_images(rows, shape, columns)
