"""What a training run is asked for: one field an option, checked, None where a recipe decides."""

from __future__ import annotations

from dataclasses import dataclass

from nembp.runs.option import Option
from nembp.runs.option_fields import OptionFields
from nembp.runs.option_fields import choice as _choice
from nembp.runs.option_fields import option as _option

__all__ = ["RunConfig", "options"]


@dataclass(frozen=True)
class RunConfig(OptionFields):
    """Options of a training run; None means the data set's recipe (see `recipe`).

    The fields are those of ``nembp train --help``, with _ for -.

    Raises
    ------
    ArchitectureError
        If a value is of the wrong type or out of bounds.

    Examples
    --------
    >>> RunConfig(layers="conv8x4s2,16", epochs=3).layers
    ('conv8x4s2', 16)
    >>> RunConfig(epochs=0)
    Traceback (most recent call last):
        ...
    nembp.errors.ArchitectureError: epochs must be a whole number ≥ 1, got 0
    """

    dataset: str = _option("text", "Data", "Data set: `nembp data list` names them.", "digits")
    data_dir: str | None = _option(
        "path", "Data", "Folder it is read from; of npz and csv the file, or a folder with it."
    )
    targets: tuple[str, ...] | None = _option(
        "names", "Data", "Target columns of a csv, by name; its last column if left out."
    )
    task: str | None = _choice(
        "Data", "What the targets are; auto looks at them.", "auto", "classification", "regression"
    )
    limit: int | None = _option(
        "integer", "Data", "Train on this many samples, drawn in the classes' proportions.", least=1
    )
    test_fraction: float | None = _option(
        "number", "Data", "Share held out for testing where the files hold no test split.",
        above=0, below=1,
    )  # fmt: skip
    validation_fraction: float | None = _option(
        "number", "Data", "Share of the training samples that each epoch is scored on. Without "
        "one, epochs are scored on the test split: for display only, nothing is chosen by it.",
        least=0, below=1,
    )  # fmt: skip
    split_seed: int | None = _option(
        "integer", "Data", "Seed of these splits and of --limit, apart from --seed so that runs "
        "of different seeds share them.", least=0,
    )  # fmt: skip

    image_size: tuple[int, int] | None = _option(
        "size", "Data", "Resize the files of `images` to this height and width, as in 32x32."
    )
    scaling: str | None = _choice(
        "Data", "Of the inputs: unit maps images, or each column of a table, to [0, 1]; channel "
        "standardizes images channel by channel; auto is channel for images of several channels, "
        "unit for others, and standardizes the columns of tables.", "auto", "unit", "channel",
    )  # fmt: skip
    augment: str | None = _option(
        "augmentation", "Data", "Change each training image anew every epoch: flips (half of "
        "them, left to right), crops (shifted by up to 4 pixels; crops2: 2), flips,crops, none.",
    )  # fmt: skip

    layers: tuple[int | str, ...] | None = _option(
        "layers", "Network", 'Hidden layers, "" for none: 256 neurons, conv32x4s2 (32 channels, '
        "kernel 4x4, stride 2), pool2, up64x4s2, reshape4x4x128, with commas between them; 256bn "
        "and conv32x4s2bn are batch-normalized.",
    )  # fmt: skip
    activation: str | None = _choice(
        "Network", "Of the hidden neurons.", "relu", "leaky-relu", "tanh", "logistic", "identity"
    )
    forward: str | None = _choice(
        "Network", "Likelihood of the forward direction, log p(y|x).",
        "multinomial", "gaussian", "bernoulli",
    )  # fmt: skip
    backward: str | None = _choice(
        "Network", "Likelihood of the backward direction, log p(x|y); none trains the forward "
        "direction alone.", "gaussian", "bernoulli", "multinomial", "none",
    )  # fmt: skip
    backward_weight: float | None = _option(
        "number", "Network", "Weight of the backward direction: the precision 1/v of a gaussian, "
        "the tempering power of the others.", above=0,
    )  # fmt: skip
    weight_scale: float | None = _option(
        "number", "Network", "Initial weights, times Glorot's; about 4 spares deep logistic layers "
        "a plateau, since the slope of logistic units is at most 1/4.", above=0,
    )  # fmt: skip
    dtype: str | None = _choice("Network", "Precision.", "float32", "float64")

    noise: str | None = _choice(
        "NEM noise", "Noise on the training targets: NEM (kept where it makes the target more "
        "probable), or one of its controls.", "none", "nem", "blind", "anti", "drift",
    )  # fmt: skip
    noise_target: str | None = _choice(
        "NEM noise", "Direction whose target receives it.", "forward", "backward", "both"
    )
    noise_place: tuple[str, ...] | None = _option(
        "names", "NEM noise", "Where in that direction: on its target, its input, all hidden "
        "layers or the last one; several with commas between them. Signals are screened by how "
        "probable the target is when the layers above run again.",
        choices=("target", "input", "hidden", "last-hidden"),
    )  # fmt: skip
    noise_std: float | None = _option(
        "number", "NEM noise", "Standard deviation of the first draw, in units of the scaled "
        "target.", least=0,
    )  # fmt: skip
    noise_decay: float | None = _option(
        "number", "NEM noise", "d of the annealing: std / tᵈ.", least=0
    )
    noise_clock: str | None = _choice("NEM noise", "What t counts.", "epoch", "iteration")
    noise_law: str | None = _choice(
        "NEM noise", "Law of the draws; on targets also normal ones that vary as the output itself "
        "is undecided.", "gaussian", "uniform", "curvature",
    )  # fmt: skip
    noise_mode: str | None = _choice(
        "NEM noise", "t + n, or t (1 + n).", "additive", "multiplicative"
    )
    noise_screening: str | None = _choice(
        "NEM noise", "Screen whole samples, single neurons, or batches by their mean gain; auto: "
        "neurons for a gaussian target, samples else.",
        "auto", "vector", "component", "expectation",
    )  # fmt: skip
    noise_rejected: str | None = _choice(
        "NEM noise", "What becomes of a rejected draw: -n is tried, or 0 taken.", "reflect", "zero"
    )
    noise_update: str | None = _choice(
        "NEM noise", "Softmax error under noise: a Σ(t+n) - (t+n), a - (t+n), or noise projected "
        "to sum zero.", "exact", "published", "zero-sum",
    )  # fmt: skip

    noise_draws: int | None = _option(
        "integer", "NEM noise", "Draws a sample, of which the one with the largest gain is taken.",
        least=1,
    )  # fmt: skip

    optimizer: str | None = _choice("Training", "Optimizer.", "adam", "rmsprop", "momentum", "sgd")
    learning_rate: float | None = _option("number", "Training", "Of the first step.", above=0)
    weight_decay: float | None = _option(
        "number", "Training", "Decoupled decay of the weights that both directions share.", least=0
    )
    schedule: str | None = _choice(
        "Training", "Course of the learning rate over the run; late-cosine: at first constant.",
        "cosine", "constant", "step", "late-cosine",
    )  # fmt: skip
    batch_size: int | None = _option("integer", "Training", "Samples a step.", least=1)
    epochs: int | None = _option("integer", "Training", "Passes over the training data.", least=1)
    patience: int | None = _option(
        "integer", "Training", "Stop when the validation split's forward nll has not improved for "
        "this many epochs, and keep the best; holds out a tenth if --validation-fraction is not "
        "given.", least=1,
    )  # fmt: skip
    seed: int | None = _option(
        "integer", "Training", "Of the weights, batches and noise, each its own stream.", least=0
    )
    device: str | None = _choice(
        "Training", "auto takes a GPU where one works.", "auto", "cpu", "gpu"
    )
    precision: str | None = _choice(
        "Training", "Of a GPU's float32 products: TF32 is faster, and keeps three digits.",
        "float32", "tf32",
    )  # fmt: skip
    cuda_graphs: str | None = _choice(
        "Training", "Capture a GPU's training step once and replay it: faster, the same numbers.",
        "auto", "off",
    )  # fmt: skip
    threads: int | None = _option(
        "integer", "Training", "BLAS threads; as the BLAS has it if left out.", least=1
    )


def options() -> dict[str, Option]:
    """Return every option by the name of its field, in order."""
    return RunConfig.options()
