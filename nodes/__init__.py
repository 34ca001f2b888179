"""The extension: its nodes, and the demo model's files offered to the stock loaders."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import ComfyExtension, io

from .act.mask import AttributionToMask, LocateObject
from .act.pick import PickBest
from .act.strength import ReferenceStrength
from .ask.compare import CompareAttributions
from .ask.imacs import Imacs
from .ask.influence import ReferenceInfluence
from .ask.truth import TopPart, TruthTest
from .look.correspondence import CorrespondenceNode
from .look.map import AttributionMapNode
from .look.point import PointAttribution
from .look.viewer import AttributionViewer
from .look.words import WordAttribution
from .prepare.demo import BlankPrompt, LoadInsertionModel, ReferenceTokens
from .prepare.image_tokens import ImageTokensToConditioning
from .prepare.redux import MarkReduxTokens
from .prepare.trace import TraceAdapterTokens
from .prepare.words import LoadWordModel
from .watch.capture import CaptureAttention
from .watch.collect import CollectAttribution
from .watch.files import LoadAttribution, SaveAttribution
from .watch.probe import ProbePicture

_MODELS = Path(__file__).resolve().parent.parent / "models"


class I2AMExtension(ComfyExtension):
    """ComfyUI-I2AM."""

    async def on_load(self) -> None:
        for kind in ("diffusion_models", "vae"):
            folder_paths.add_model_folder_path(kind, str(_MODELS / kind))

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            CaptureAttention,
            CollectAttribution,
            ProbePicture,
            AttributionMapNode,
            PointAttribution,
            CorrespondenceNode,
            AttributionViewer,
            WordAttribution,
            Imacs,
            ReferenceInfluence,
            ReferenceStrength,
            AttributionToMask,
            LocateObject,
            CompareAttributions,
            PickBest,
            TopPart,
            TruthTest,
            SaveAttribution,
            LoadAttribution,
            ImageTokensToConditioning,
            MarkReduxTokens,
            TraceAdapterTokens,
            BlankPrompt,
            LoadInsertionModel,
            ReferenceTokens,
            LoadWordModel,
        ]
