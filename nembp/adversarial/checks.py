"""What networks, samples, noise and settings of an adversarial training need of each other."""

from __future__ import annotations

from nembp.adversarial.objectives import Score
from nembp.adversarial.settings import AdversarialSettings
from nembp.datasets.reading import BatchReader
from nembp.engine.likelihoods import Bernoulli, Likelihood, Multinomial
from nembp.engine.network import Network
from nembp.engine.noise import Noise
from nembp.errors import ArchitectureError

__all__ = ["check_networks", "check_noise"]


def check_networks(
    generator: Network,
    discriminator: Network,
    reader: BatchReader,
    settings: AdversarialSettings,
) -> None:
    """Check that G's output, D's input and the samples fit, and D's output the settings.

    Raises
    ------
    ArchitectureError
        Saying which does not, and what is expected.
    """
    sizes = generator.outputs, discriminator.inputs, reader.features
    if len(set(sizes)) > 1:
        raise ArchitectureError(
            f"the generator has {sizes[0]} outputs, the discriminator {sizes[1]} inputs and a "
            f"sample {sizes[2]} values; expected the same number"
        )
    kinds = (generator.backend, generator.dtype), (discriminator.backend, discriminator.dtype)
    if kinds[0] != kinds[1]:
        raise ArchitectureError(
            f"generator and discriminator must be on one device in one dtype, got "
            f"{' and '.join(f'{backend} {dtype}' for backend, dtype in kinds)}"
        )
    _check_output(discriminator, reader, settings)
    trained = {
        "discriminator": (discriminator, settings.discriminator_backward),
        "generator": (generator, settings.generator_backward),
    }
    for name, (net, backward) in trained.items():
        likelihood = net.reversed.likelihood
        if backward and likelihood.scale != 1.0:
            raise ArchitectureError(
                f"the {name}'s backward likelihood {likelihood} has weight {likelihood.scale:g}; "
                f"expected 1, which {name}_weight multiplies"
            )
    if settings.latent_law == "binary" and settings.generator_backward:
        back = generator.reversed.likelihood
        if not isinstance(back, Bernoulli):
            raise ArchitectureError(
                f"the generator's backward likelihood {back} does not fit a binary z; expected "
                "bernoulli, or latent law gaussian"
            )
    if settings.discriminator_backward and not discriminator.reversed.likelihood.class_sums:
        raise ArchitectureError(
            f"the discriminator's backward likelihood {discriminator.reversed.likelihood} has no "
            "class sums; use gaussian or bernoulli"
        )


def _check_output(
    discriminator: Network, reader: BatchReader, settings: AdversarialSettings
) -> None:
    expected: type[Likelihood] = Bernoulli
    outputs = 1
    if settings.has_critic:
        expected = Score
    elif settings.classes:
        expected, outputs = Multinomial, settings.classes + 1
    fits = isinstance(discriminator.likelihood, expected) and discriminator.outputs == outputs
    if not fits or discriminator.likelihood.scale != 1.0:
        raise ArchitectureError(
            f"the discriminator has {discriminator.outputs} outputs of likelihood "
            f"{discriminator.likelihood}; kind {settings.kind} with classes {settings.classes} "
            f"needs {outputs} of likelihood {expected.__name__}, of weight 1"
        )
    if settings.classes and not (reader.is_classification and reader.outputs == settings.classes):
        raise ArchitectureError(
            f"classes {settings.classes} need samples with that many labels, got "
            f"{reader.outputs} {'labels' if reader.is_classification else 'regression targets'}"
        )


def check_noise(noise: dict[str, Noise] | None, settings: AdversarialSettings) -> dict[str, Noise]:
    """Return the noise that is not of kind none, its places checked.

    Raises
    ------
    ArchitectureError
        If a place is unknown, or the settings have no such target or input.
    """
    wanted = {key: each for key, each in (noise or {}).items() if each.kind != "none"}
    needs = {
        "discriminator/forward": (not settings.has_critic, "kind vanilla or minimax"),
        "discriminator/backward": (
            settings.discriminator_backward,
            "bidirectional discriminator or both",
        ),
        "generator/backward": (settings.generator_backward, "bidirectional generator or both"),
        "discriminator/input": (
            not settings.has_critic and not settings.classes,
            "kind vanilla or minimax, and classes 0",
        ),
        "critic/input": (settings.has_critic, "kind wasserstein or wasserstein-gp"),
    }
    for key in wanted:
        if key not in needs:
            raise ArchitectureError(f"noise must be for one of {', '.join(needs)}, got {key!r}")
        fits, remedy = needs[key]
        if not fits:
            raise ArchitectureError(f"noise {key} needs {remedy}, or leave it out")
    return wanted
