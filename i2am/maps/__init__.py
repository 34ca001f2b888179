"""Recording → attribution maps: levels, points, correspondence, sinks, comparison of two runs.

A map is raw attention over one grid. Nothing here is scaled for display.
"""

from .comparison import Comparison, compare_maps
from .correspondence import Correspondence, correspondence_of
from .levels import attribution_map, paper_selection
from .matches import BestMatches, best_matches
from .points import (
    Location,
    check_pooled,
    exact_point_map,
    point_map,
    recorded_places,
    recorded_point,
)
from .rollout import attention_rollout, trace_reference
from .shares import item_shares, mean_shares, recording_coverage
from .sinks import (
    SINK_LEVEL,
    SINK_PART,
    describe_sinks,
    find_sinks,
    remove_sinks,
    sink_correspondence,
    sink_mass,
    without_sinks,
)
from .values import (
    EVERY_FRAME,
    FLAT,
    MEAN_FRAME,
    AttributionMap,
    LayerWeight,
    Level,
    ResampleOrder,
    Selection,
    caption,
    display_values,
    is_share,
    unit,
)
from .words import (
    ALL_STEPS,
    region_weights,
    token_maps,
    word_grid,
    word_groups,
    word_maps,
    word_shares,
)

__all__ = [
    "ALL_STEPS",
    "EVERY_FRAME",
    "FLAT",
    "MEAN_FRAME",
    "SINK_LEVEL",
    "SINK_PART",
    "AttributionMap",
    "BestMatches",
    "Comparison",
    "Correspondence",
    "LayerWeight",
    "Level",
    "Location",
    "ResampleOrder",
    "Selection",
    "attention_rollout",
    "attribution_map",
    "best_matches",
    "caption",
    "check_pooled",
    "compare_maps",
    "correspondence_of",
    "describe_sinks",
    "display_values",
    "exact_point_map",
    "find_sinks",
    "is_share",
    "item_shares",
    "mean_shares",
    "paper_selection",
    "point_map",
    "recorded_places",
    "recorded_point",
    "recording_coverage",
    "region_weights",
    "remove_sinks",
    "sink_correspondence",
    "sink_mass",
    "token_maps",
    "trace_reference",
    "unit",
    "without_sinks",
    "word_grid",
    "word_groups",
    "word_maps",
    "word_shares",
]
