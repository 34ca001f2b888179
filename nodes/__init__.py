"""The extension: its nodes, and the demo model's files offered to the stock loaders."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import ComfyExtension, io

from .capture import CaptureAttention, CollectAttribution
from .compare import CompareAttributions
from .demo import BlankPrompt, LoadInsertionModel, ReferenceTokens
from .files import LoadAttribution, SaveAttribution
from .flow import Correspondence
from .image_tokens import ImageTokensToConditioning
from .influence import ReferenceInfluence
from .maps import AttributionMapNode
from .masks import AttributionToMask, LocateObject
from .pick import PickBest
from .points import PointAttribution
from .redux import MarkReduxTokens
from .score import Imacs
from .steer import ReferenceStrength
from .trace import TraceAdapterTokens
from .truth import TopPart, TruthTest
from .viewer import AttributionViewer

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
            AttributionMapNode,
            PointAttribution,
            Correspondence,
            AttributionViewer,
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
        ]
