"""Maps → numbers and masks: IMACS, influence, boxes, masks, and the truth test.

Each score starts from the raw map and normalises it itself.
"""

from .effect import output_change
from .fitting import fitting_mask
from .imacs import PENALTY, Preset, Score, imacs_score, paper_normalise
from .influence import (
    ColorBy,
    influence_details,
    measure_influence,
    strength_maps,
)
from .locate import KERNEL, PERCENTILE, THRESHOLD, Box, box_around, locate_object
from .masks import Method, feather, grow, mask_of
from .truth import mean_change, random_elsewhere, top_fraction
from .verdict import Part, influence_verdict, strongest_places
from .words import Ranked, Ranking, rank_sources, ranking_text

__all__ = [
    "KERNEL",
    "PENALTY",
    "PERCENTILE",
    "THRESHOLD",
    "Box",
    "ColorBy",
    "Method",
    "Part",
    "Preset",
    "Ranked",
    "Ranking",
    "Score",
    "box_around",
    "feather",
    "fitting_mask",
    "grow",
    "imacs_score",
    "influence_details",
    "influence_verdict",
    "locate_object",
    "mask_of",
    "mean_change",
    "measure_influence",
    "output_change",
    "paper_normalise",
    "random_elsewhere",
    "rank_sources",
    "ranking_text",
    "strength_maps",
    "strongest_places",
    "top_fraction",
]
