"""Where did the object go? The I2AM paper's object localisation, on the demo insertion model.

    python tools/localisation.py

A box is cut out of each of a number of held-out pictures, and the model puts the object back from a
picture of what was in the box. The map over the result (reference to generated) is turned into a
box by the paper's recipe, and held against the box that was cut out: mean intersection over union,
with a bootstrap interval over the pictures. As in the paper the model is told the box, as the place
to fill: what is asked is whether the map follows the reference, not whether an object is detected.

Everything goes through ComfyUI's sampler and the pack's own nodes and capture.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.demo_insertions import Insertions, make_insertions, random_box  # noqa: E402
from tools.demo_scenes import HELD_OUT_SEEDS  # noqa: E402
from tools.in_process import import_comfyui, import_pack  # noqa: E402

MODEL = ROOT / "models" / "diffusion_models" / "i2am_demo_insertion.safetensors"
VAE = ROOT / "models" / "vae" / "i2am_demo_vae.safetensors"
STEPS, CFG = 20, 3.0
RESAMPLES = 2000  # of the pictures, for an interval of 95 %
RANDOM_BOXES = 100  # for each picture


class Host:
    """ComfyUI's parts and the pack's that are needed."""

    def __init__(self, package: str) -> None:
        import comfy.sd
        import comfy.utils

        def of_pack(module: str) -> ModuleType:
            return importlib.import_module(f"{package}.{module}")

        self.hook, self.demo, self.store = map(of_pack, ("nodes.hook", "nodes.demo", "i2am.store"))
        self.attribution, self.locate = of_pack("i2am.attribution"), of_pack("i2am.locate")
        self.masks = of_pack("i2am.masks")
        weights, metadata = comfy.utils.load_torch_file(str(VAE), return_metadata=True)
        self.vae = comfy.sd.VAE(sd=weights, metadata=metadata)
        self.model = self.demo.load_insertion_model(MODEL)

    def untrained(self) -> Any:
        """The model with the weights it might have begun with."""
        from tools.train_demo_unet import new_unet

        torch.manual_seed(0)
        heads = self.demo.InsertionUNet.unet_extra_config["num_heads"]
        model = self.model.clone()
        model.model = self.demo.load_insertion_model(MODEL).model
        model.model.diffusion_model.load_state_dict(new_unet(heads).state_dict())
        return model

    def insert(
        self, scenes: Insertions, reference: Tensor | None = None, model: Any = None
    ) -> tuple[Tensor, Any]:
        """Fill the boxes: the pictures, and the recording."""
        import comfy.sample
        import nodes

        given = scenes.reference if reference is None else reference
        positive = self.demo.ReferenceTokens.execute(given, self.vae).args[0]
        negative = nodes.ConditioningZeroOut().zero_out(positive)[0]
        positive, negative, latent = nodes.InpaintModelConditioning().encode(
            positive, negative, scenes.target, self.vae, scenes.box_mask, noise_mask=False
        )
        start = latent["samples"]
        armed = self.hook.arm(model or self.model, self.hook.Plan(branch="conditional"))
        output = comfy.sample.sample(
            armed, comfy.sample.prepare_noise(start, 1), STEPS, CFG, "euler", "simple", positive,
            negative, start, disable_pbar=True, seed=1,
        )  # fmt: skip
        record = self.hook.RECORDINGS.get(self.store.fingerprint(output))
        if not hasattr(record, "arrays"):
            raise SystemExit(f"Nothing was recorded: {record}")
        return self.vae.decode(output), record


def overlaps(host: Host, maps: Any, scenes: Insertions) -> np.ndarray:
    """Intersection over union with the true box, for each picture, by the paper's recipe.

    A map that singles out no place is the answer "somewhere in the picture": the whole of it.
    """
    size = scenes.scene.shape[1:3]
    boxes = host.locate.locate(maps, size)
    whole = host.locate.Box(0, 0, size[1], size[0])
    true = [host.locate.Box(*box) for box in scenes.boxes]
    return np.array([(box or whole).overlap(t) for box, t in zip(boxes, true, strict=True)])


def overlaps_otsu(host: Host, maps: Any, scenes: Insertions) -> np.ndarray:
    """The same with the box around the brighter of Otsu's two classes, which has no fixed area."""
    masks = host.masks.mask_of(maps, scenes.scene.shape[1:3], host.masks.Method.OTSU, 0)
    true = [host.locate.Box(*box) for box in scenes.boxes]
    return np.array(
        [host.locate.box_around(m).overlap(t) for m, t in zip(masks, true, strict=True)]
    )


def baselines(host: Host, scenes: Insertions, seed: int) -> dict[str, np.ndarray]:
    """What boxes reach that know nothing: the whole picture, and random ones like the true."""
    size = scenes.scene.shape[1]
    true = [host.locate.Box(*box) for box in scenes.boxes]
    rng = np.random.default_rng(seed)
    guesses = [
        [host.locate.Box(*random_box(rng, size)).overlap(t) for _ in range(RANDOM_BOXES)]
        for t in true
    ]
    return {
        "whole picture": np.array([host.locate.Box(0, 0, size, size).overlap(t) for t in true]),
        "random box": np.mean(guesses, axis=1),
    }


def interval(values: Sequence[float] | np.ndarray, seed: int) -> tuple[float, float, float]:
    """Mean, and the bootstrap interval of 95 % of it, over pictures."""
    values = np.asarray(values)
    picked = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(values[picked].mean(1), (2.5, 97.5))
    return float(values.mean()), float(low), float(high)


def one(maps: Any, number: int) -> Any:
    """One of several maps as a map of its own."""
    return replace(maps, values=maps.values[:, number : number + 1], labels=(maps.labels[number],))


def psnr_in_box(pictures: Tensor, scenes: Insertions) -> np.ndarray:
    """dB inside the box, for each picture."""
    error = ((pictures.clamp(0, 1) - scenes.target) ** 2).mean(-1)
    inside = (error * scenes.box_mask).sum((1, 2)) / scenes.box_mask.sum((1, 2))
    return (-10 * inside.log10()).numpy()


def measure(host: Host, scenes: Insertions, seed: int) -> dict[str, np.ndarray]:
    """One value for each picture, under the name of each row of the table."""
    a = host.attribution
    pictures, record = host.insert(scenes)
    wrong, record_wrong = host.insert(scenes, scenes.reference.roll(1, 0))
    _, record_untrained = host.insert(scenes, model=host.untrained())

    def r2g(record: Any, definition: str = "paper", level: str = "unified", **selection: Any) -> Any:
        selected = a.Selection(**selection)
        if definition == "paper" and level == "unified" and not selection:
            selected = a.paper_selection(record, selected)
        direction = a.Direction.REFERENCE_TO_GENERATED
        return a.attribution_map(
            record, a.Definition(definition), direction, a.Level(level), selection=selected
        )

    rows = baselines(host, scenes, seed)
    rows["DAAM's reduction"] = overlaps(host, r2g(record, "model"), scenes)
    rows["R2G of the untrained model"] = overlaps(host, r2g(record_untrained), scenes)
    rows["R2G, another reference"] = overlaps(host, r2g(record_wrong), scenes)
    rows["R2G, the paper's recipe"] = overlaps(host, r2g(record), scenes)
    rows["R2G, Otsu's box"] = overlaps_otsu(host, r2g(record), scenes)
    for level in ("layer", "time", "head"):
        maps = r2g(record, level=level)
        for number, label in enumerate(maps.labels):
            rows[f"{level}: {label}"] = overlaps(host, one(maps, number), scenes)
    rows["dB in the box, right reference"] = psnr_in_box(pictures, scenes)
    rows["dB in the box, another reference"] = psnr_in_box(wrong, scenes)
    return rows


def figure(host: Host, scenes: Insertions, path: Path) -> None:
    """Some pictures side by side: scene, reference, result, map, and both boxes over the target."""
    a = host.attribution
    pictures, record = host.insert(scenes)
    maps = a.attribution_map(
        record, a.Definition.PAPER, a.Direction.REFERENCE_TO_GENERATED,
        selection=a.paper_selection(record, a.Selection()),
    )  # fmt: skip
    size = scenes.scene.shape[1:3]
    render = importlib.import_module(host.attribution.__name__.replace("attribution", "render"))
    colormaps = importlib.import_module(host.attribution.__name__.replace("attribution", "colormaps"))
    values = render.resize(maps.values, maps.grid, size)[:, 0]
    low, high = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
    drawn = render.heatmap((values - low) / (high - low), colormaps.Colormap.INFERNO)
    boxed = pictures.clone()
    for n, (found, true) in enumerate(zip(host.locate.locate(maps, size), scenes.boxes, strict=True)):
        for box, colour in ((host.locate.Box(*true), (1, 1, 1)), (found, (1, 0.8, 0))):
            if box is not None:
                inside = box.mask(size)
                line = (inside - host.masks.grow(inside[None], -2)[0]) > 0
                boxed[n][line] = torch.tensor(colour, dtype=torch.float32)
    columns = (scenes.scene, scenes.reference, pictures.clamp(0, 1), drawn, boxed.clamp(0, 1))
    rows = torch.cat([torch.cat(list(column), 1) for column in columns], 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((rows.numpy() * 255).round().astype(np.uint8)).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0, help="of random boxes and intervals")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--figure", type=Path, help="draw the first pictures into this file")
    options = parser.parse_args()
    torch.set_num_threads(1)  # tensors this small only wait for a second one
    import_comfyui()
    host = Host(import_pack().__name__)
    with torch.inference_mode():
        start = HELD_OUT_SEEDS.start + 2000
        rows = measure(host, make_insertions(options.pictures, start), options.seed)
        if options.figure:
            figure(host, make_insertions(8, start), options.figure)
    figures = {name: interval(values, options.seed) for name, values in rows.items()}
    print(f"{options.pictures} held-out pictures, {STEPS} steps, cfg {CFG:g}; mean IoU, 95 % interval")
    for name, (mean, low, high) in figures.items():
        print(f"  {name:34} {mean:7.3f}  {low:.3f} … {high:.3f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
