"""Maps and recordings → pictures and words: overlays, reports, the viewer's payload, live maps.

Nothing here measures. What is drawn never feeds back into a number.
"""

from .colormaps import Colormap, Diverging, colorize
from .descriptions import describe, describe_exact, describe_point, describe_pooled
from .flow import arrow_image, flow_image, most_confident
from .live import Live
from .payload import pack_payload, read_payload_header
from .render import (
    Scale,
    contact_sheet,
    difference_overlay,
    heatmap,
    legend,
    overlay,
    paint,
    paint_sources,
    source_legend,
)
from .report import recording_report, recording_summary, support_lines
from .whole import place_pictures, place_values

__all__ = [
    "Colormap",
    "Diverging",
    "Live",
    "Scale",
    "arrow_image",
    "colorize",
    "contact_sheet",
    "describe",
    "describe_exact",
    "describe_point",
    "describe_pooled",
    "difference_overlay",
    "flow_image",
    "heatmap",
    "legend",
    "most_confident",
    "overlay",
    "pack_payload",
    "paint",
    "paint_sources",
    "place_pictures",
    "place_values",
    "read_payload_header",
    "recording_report",
    "recording_summary",
    "source_legend",
    "support_lines",
]
