"""Where each token of an attention call sits: grids, spans, layouts, and one file per model family.

Everything here works on plain numbers and maps; nothing sees a model or its attention.
"""

from .grids import WHOLE_PICTURE, Grid, Rectangle, frames_of
from .layout import ADAPTER_TOKENS, Picture, Role, Span, TokenLayout, grid_of
from .point_queries import MAX_POINTS, RESULT, PointQuery, check_point_count, parse_point_queries
from .ranges import (
    Ranges,
    in_ranges,
    parse_ranges,
    ranges_text,
    resolve_ranges,
    select_indices,
)
from .regions import Region, region_weights
from .resampling import (
    invert_spread,
    mask_coverage,
    mean_over_cells,
    pooling_weights,
    resample,
    resample_cells,
    resample_nonnegative,
    row_runs,
    spread,
    spreading_weights,
)

__all__ = [
    "ADAPTER_TOKENS",
    "MAX_POINTS",
    "RESULT",
    "WHOLE_PICTURE",
    "Grid",
    "Picture",
    "PointQuery",
    "Ranges",
    "Rectangle",
    "Region",
    "Role",
    "Span",
    "TokenLayout",
    "check_point_count",
    "frames_of",
    "grid_of",
    "in_ranges",
    "invert_spread",
    "mask_coverage",
    "mean_over_cells",
    "parse_point_queries",
    "parse_ranges",
    "pooling_weights",
    "ranges_text",
    "region_weights",
    "resample",
    "resample_cells",
    "resample_nonnegative",
    "resolve_ranges",
    "row_runs",
    "select_indices",
    "spread",
    "spreading_weights",
]
