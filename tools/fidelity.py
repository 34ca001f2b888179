"""Does the map tell the truth? The demo model's maps held against what is known of its scenes.

Every figure is taken through ComfyUI's own loaders and sampler and the pack's own capture, on
held-out scenes whose answer is known token by token: the demo model must copy the object of the
reference into the hole of the scene, and `Scenes.correspondence` says which token goes where.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from demo_flux import DemoFlux
from demo_scenes import (
    HELD_OUT_SEEDS,
    PLAIN,
    RECIPES,
    Scenes,
    correspondence_distance,
    make_scenes,
    token_coverage,
)
from in_process import ROOT, import_comfyui, import_pack

MODEL = ROOT / "models" / "diffusion_models" / "i2am_demo_inpaint.safetensors"
VAE = ROOT / "models" / "vae" / "i2am_demo_vae.safetensors"
STEPS = 20
UNTRAINED_MODELS = 8  # freshly initialised: where one of them looks is chance
UNTRAINED_SCENES = 16
SCENE, OBJECT = 0, 1  # the references, in the order the model is given them
LAST = 4  # the layer that reads the object: the last of one double and four single blocks

# The bar each figure must reach: (smallest, largest).
BARS: dict[str, tuple[float, float]] = {
    "corr_exact_last": (0.95, 1.0),
    "corr_exact_mean": (0.95, 1.0),
    "corr_within1": (0.99, 1.0),
    "g2r_mass_last": (0.98, 1.0),
    "g2r_mass_mean": (0.90, 1.0),
    "g2r_pointing": (0.98, 1.0),
    "r2g_mass_last": (0.65, 1.0),
    "psnr_right": (22.0, 99.0),
    "psnr_gain_over_wrong": (10.0, 99.0),
    "psnr_gain_over_none": (10.0, 99.0),
    "imacs_r_trained": (0.6, 1.0),
    "imacs_r_untrained": (-3.0, -0.4),
}
MEANINGS = {
    "corr_exact_last": "hole tokens whose strongest match is the true token, last block",
    "corr_exact_mean": "the same, all blocks averaged",
    "corr_within1": "hole tokens whose strongest match is the true token or beside it, last block",
    "g2r_mass_last": "attention of the hole on the object's tokens, last block",
    "g2r_mass_mean": "the same, all blocks averaged raw",
    "g2r_pointing": "scenes whose highest cell of that is on the object",
    "r2g_mass_last": "model R2G inside the hole, last block",
    "psnr_right": "dB in the hole, with the right reference",
    "psnr_wrong": "dB in the hole, with another scene's reference",
    "psnr_none": "dB in the hole, without the object's reference",
    "imacs_r_trained": "IMACS over the object, of what the hole looked at, all blocks",
    "imacs_r_untrained": "the same, mean of eight models before any training",
}


@dataclass(frozen=True)
class Host:
    """ComfyUI's parts and the pack's that are needed, imported."""

    model: Any
    vae: Any
    pack: SimpleNamespace

    def sample(self, latents: list[Tensor], count: int, **plan: Any) -> tuple[Tensor, Any]:
        """Fill the holes, given encoded references: a latent, and its recording if planned."""
        import comfy.sample

        options = {"reference_latents": latents}
        positive = [[torch.zeros(1, 1, 16), options]]
        start = torch.zeros(count, 16, *latents[0].shape[-2:])
        model = self.model
        if plan:
            model = self.pack.arm(model, self.pack.Plan(**plan))
        latent = comfy.sample.sample(
            model, comfy.sample.prepare_noise(start, 1), STEPS, 1.0, "euler", "simple", positive,
            positive, start, disable_pbar=True, seed=1,
        )  # fmt: skip
        record = self.pack.RECORDINGS.get(self.pack.fingerprint(latent)) if plan else None
        if plan and not isinstance(record, self.pack.Recording):
            raise SystemExit(f"Nothing was recorded: {record}")
        return latent, record


def pack_names(package: str) -> SimpleNamespace:
    """Everything this tool uses of the pack, which is loaded under this name."""
    modules = ("nodes.hook", "nodes.sockets", "i2am.attribution", "i2am.metric", "i2am.recorder")
    names = SimpleNamespace()
    for module in (*modules, "i2am.store"):
        vars(names).update(vars(importlib.import_module(f"{package}.{module}")))
    return names


def load(pack: SimpleNamespace, model: Path = MODEL, vae: Path = VAE) -> Host:
    """The demo model and its VAE through ComfyUI's loaders."""
    import comfy.sd
    import comfy.utils

    if not model.exists() or not vae.exists():
        raise SystemExit(f"The demo model is not there: {model.name} or {vae.name} is missing.")
    weights, metadata = comfy.utils.load_torch_file(str(vae), return_metadata=True)
    return Host(
        comfy.sd.load_diffusion_model(str(model)),
        comfy.sd.VAE(sd=weights, metadata=metadata),
        pack,
    )


def psnr(pictures: Tensor, scenes: Scenes) -> float:
    """Mean over scenes of the PSNR in dB inside the hole."""
    error = ((pictures.clamp(0, 1) - scenes.target) ** 2).mean(-1)
    inside = (error * scenes.hole).sum((1, 2)) / scenes.hole.sum((1, 2))
    return float((-10 * inside.log10()).mean())


def measure(host: Host, scenes: Scenes) -> dict[str, float]:
    """The figures of one set of scenes."""
    count = len(scenes)
    tokens = scenes.grid[0] * scenes.grid[1]
    scene, reference = host.vae.encode(scenes.scene), host.vae.encode(scenes.reference)
    right, recording = host.sample([scene, reference], count, branch="conditional")
    _, last = host.sample([scene, reference], count, layers=((LAST, LAST),))
    wrong, _ = host.sample([scene, reference.roll(1, 0)], count)
    none, _ = host.sample([scene], count)

    hole = token_coverage(scenes.hole) >= 0.5
    touched = (token_coverage(scenes.hole) > 0).float()
    on_object = (token_coverage(scenes.object) > 0).float()
    asked = hole & (scenes.correspondence >= 0)

    def matches(record: Any, kind: str = "model.") -> Tensor:
        return record.arrays[f"correspondence.{kind}{OBJECT}"].reshape(count, tokens, tokens)

    off_last = correspondence_distance(matches(last).argmax(-1), scenes)[asked]
    off_mean = correspondence_distance(matches(recording).argmax(-1), scenes)[asked]
    last_g2r = (matches(last) * hole[..., None]).sum(1)
    mean_g2r = (matches(recording) * hole[..., None]).sum(1)
    r2g = last.arrays[f"model.r2g.{OBJECT}.step_layer"].mean((1, 2)).flatten(1)
    figures = {
        "corr_exact_last": float((off_last == 0).float().mean()),
        "corr_exact_mean": float((off_mean == 0).float().mean()),
        "corr_within1": float((off_last <= 1).float().mean()),
        "g2r_mass_last": _mass(last_g2r, on_object),
        "g2r_mass_mean": _mass(mean_g2r, on_object),
        "g2r_pointing": float(on_object.gather(1, mean_g2r.argmax(1, keepdim=True)).mean()),
        "r2g_mass_last": _mass(r2g, touched),
        "area_object": float(on_object.mean()),
        "area_hole": float(touched.mean()),
        "psnr_right": psnr(host.vae.decode(right), scenes),
        "psnr_wrong": psnr(host.vae.decode(wrong), scenes),
        "psnr_none": psnr(host.vae.decode(none), scenes),
        "imacs_r_trained": imacs_over_object(host, recording, scenes),
    }
    for other in ("wrong", "none"):
        figures[f"psnr_gain_over_{other}"] = figures["psnr_right"] - figures[f"psnr_{other}"]
    return figures


def _mass(maps: Tensor, where: Tensor) -> float:
    """Mean over scenes of the part of a map's mass that lies in some of its tokens."""
    return float(((maps * where).sum(1) / maps.sum(1)).mean())


def imacs_over_object(host: Host, recording: Any, scenes: Scenes) -> float:
    """Mean over scenes of IMACS (paper preset) over the object, of what the hole looked at."""
    pack = host.pack
    maps = pack.attribution_map(
        recording,
        pack.Definition.MODEL,
        pack.Direction.GENERATED_TO_REFERENCE,
        reference=OBJECT,
        within=scenes.hole,
    )
    return float(pack.imacs(maps, scenes.object).imacs.mean())


def untrained(folder: Path, seed: int) -> Path:
    """The model before its training, as a file."""
    torch.manual_seed(seed)
    weights = DemoFlux().state_dict()
    path = folder / f"untrained_{seed}.safetensors"
    save_file({name: value.half().contiguous() for name, value in weights.items()}, path)
    return path


def imacs_untrained(pack: SimpleNamespace) -> float:
    """Mean IMACS over the object of several models that never learned to look there."""
    scenes = make_scenes(UNTRAINED_SCENES, HELD_OUT_SEEDS.start)
    found: list[float] = []
    both: list[Tensor] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(UNTRAINED_MODELS):
            host = load(pack, untrained(Path(folder), seed))
            both = both or [host.vae.encode(p) for p in (scenes.scene, scenes.reference)]
            _, recording = host.sample(both, len(scenes), branch="conditional")
            found.append(imacs_over_object(host, recording, scenes))
    return sum(found) / len(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--scenes", type=int, default=32, help="how many held-out scenes")
    parser.add_argument("--recipe", choices=list(RECIPES), default=PLAIN.name, help="which kind")
    parser.add_argument("--model", type=Path, default=MODEL, help="weights to measure")
    options = parser.parse_args()
    torch.set_num_threads(1)  # tensors this small only wait for a second one
    import_comfyui()
    pack = pack_names(import_pack().__name__)
    torch.manual_seed(0)
    with torch.inference_mode():
        scenes = make_scenes(options.scenes, HELD_OUT_SEEDS.start, recipe=RECIPES[options.recipe])
        figures = measure(load(pack, options.model), scenes)
        figures["imacs_r_untrained"] = imacs_untrained(pack)
    print(f"{options.scenes} held-out scenes “{options.recipe}”, {STEPS} steps, cfg 1")
    for name, value in figures.items():
        low, high = BARS.get(name, (float("-inf"), float("inf")))
        verdict = ""
        if name in BARS and options.recipe == PLAIN.name:
            verdict = "ok" if low <= value <= high else f"not in {low:g} … {high:g}"
        print(f"  {name:22} {value:8.3f}  {verdict:18}  {MEANINGS.get(name, '')}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
