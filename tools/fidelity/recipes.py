"""The same figures on harder scenes, one kind after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tools.demo.scenes import Scenes
from tools.fidelity.causal import EFFECT, Occluded, baselines, maps_over_reference, squared
from tools.fidelity.errors import decibels
from tools.fidelity.host import Host
from tools.fidelity.report import Table
from tools.fidelity.statistics import mean_of, pearson
from tools.fidelity.tables import COLUMNS, Truth, row_of

CAUSAL = (
    *("model, all layers (default)", "model, all layers, from the hole", "model, last layer"),
    *(EFFECT, "effect, all layers, from the hole"),
)


def by_recipe(
    host: Host,
    names: Sequence[str],
    draw: Callable[[int, str], Scenes],
    count: int,
    occluded: int,
) -> list[Table]:
    """Two tables: the known answers of each kind, and what muting each cell of a reference changes.

    draw: (count, name of the kind) → scenes. occluded: how many scenes have their cells muted.
    """
    known: list[tuple[str, ...]] = []
    causal: list[tuple[str, ...]] = []
    for name in names:
        known += _known(host, name, draw(count, name))
        causal.append(_causal(host, name, draw(count, name), draw(occluded, name)))
    return [
        Table("recipes", ("scenes", *COLUMNS), known, f"{count} scenes of each kind."),
        Table(
            "recipes-causal",
            (
                *("scenes", "dB in the hole", "dB, wrong reference", "dB, the VAE alone"),
                *(f"{name}, r" for name in CAUSAL),
                "best guess without the model, r",
            ),
            causal,
            f"dB: {count} scenes of each kind, the VAE alone is the picture itself, encoded and "
            f"decoded; r: {occluded} scenes, each cell muted. The guesses "
            "are those of the table of single cells, squared ones included.",
        ),
    ]


def _known(host: Host, name: str, scenes: Scenes) -> list[tuple[str, ...]]:
    """Rows for all layers, the last layer, and an even map."""
    truth, definition = Truth(scenes), host.pack.Definition.MODEL
    latents = host.encoded(scenes)
    rows: list[tuple[str, ...]] = []
    for layers, chosen in (("all layers", ()), ("last layer", ((host.last, host.last),))):
        _, record = host.sample(latents, len(scenes), branch="conditional", layers=chosen)
        rows.append((f"{name}, {layers}", *map(str, row_of(host.pack, truth, record, definition))))
    on_object, in_hole = f"{float(truth.object.mean()):.2f}", f"{float(truth.touched.mean()):.2f}"
    rows.append((f"{name}, an even map", "", "", on_object, "", on_object, in_hole, ""))
    return rows


def _causal(host: Host, name: str, scenes: Scenes, muted: Scenes) -> tuple[str, ...]:
    """A row: the error in the hole, and how maps correlate with what muting each cell changes."""
    scene, reference = host.encoded(scenes)
    cells = [name]
    for given in (reference, reference.roll(1, 0)):
        latent, _ = host.sample([scene, given], len(scenes))
        made = host.vae.decode(latent).clamp(0, 1)
        cells.append(f"{mean_of(decibels(made, scenes.target, scenes.hole)):.1f}")
    best = host.vae.decode(host.vae.encode(scenes.target)).clamp(0, 1)
    cells.append(f"{mean_of(decibels(best, scenes.target, scenes.hole)):.1f}")
    occluded = Occluded(host, muted)
    changes = occluded.each_alone().mean(-1)
    maps = maps_over_reference(host, muted, occluded.recording)
    cells += [str(mean_of(pearson(maps[which], changes))) for which in CAUSAL]
    guesses = baselines(muted.reference, host.vae.decode(occluded.latent).clamp(0, 1))
    guesses |= squared(guesses)
    found = {which: mean_of(pearson(guess, changes)) for which, guess in guesses.items()}
    best = max(found, key=lambda which: found[which].value)
    return (*cells, f"{found[best]!s}, {best}")
