"""One sampling run → a recording, its store and its files.

To follow one attention call: `recorder` decides whether it is recorded, `call` computes its sums,
`running_sums` adds them up, `freeze` makes the `Recording`. Memory grows with tokens, layers and
steps, never with the square of the tokens.
"""

from .attribution import (
    Attribution,
    Direction,
    best_definition,
    check_definition,
    check_reference,
    fits_reference,
    fits_results,
    side_of,
)
from .definitions import RECORDED, Definition, attention_definition
from .files import load_attribution, save_attribution
from .host_copy import HostCopy
from .items import take_items
from .plan import BUDGETS, Plan, evenly_spread, planned_steps, step_of_sigma
from .recorder import Recorder
from .recording import (
    DEFINITIONS,
    MAP_SIDE,
    Header,
    Recording,
    Run,
    correspondence_name,
    definitions_of,
    map_grid,
)
from .reference_latents import with_reference_latents
from .running_sums import kind_of
from .seen import ReferenceFit, Whole, cut, fits_grid, is_cropped, is_encoded
from .store import Refusal, Store, fingerprint, fingerprints, item_fingerprints
from .word_sums import Prompt
from .words import Word, find_prompt

__all__ = [
    "BUDGETS",
    "DEFINITIONS",
    "MAP_SIDE",
    "RECORDED",
    "Attribution",
    "Definition",
    "Direction",
    "Header",
    "HostCopy",
    "Plan",
    "Prompt",
    "Recorder",
    "Recording",
    "ReferenceFit",
    "Refusal",
    "Run",
    "Store",
    "Whole",
    "Word",
    "attention_definition",
    "best_definition",
    "check_definition",
    "check_reference",
    "correspondence_name",
    "cut",
    "definitions_of",
    "evenly_spread",
    "find_prompt",
    "fingerprint",
    "fingerprints",
    "fits_grid",
    "fits_reference",
    "fits_results",
    "is_cropped",
    "is_encoded",
    "item_fingerprints",
    "kind_of",
    "load_attribution",
    "map_grid",
    "planned_steps",
    "save_attribution",
    "side_of",
    "step_of_sigma",
    "take_items",
    "with_reference_latents",
]
