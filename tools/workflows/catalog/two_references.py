"""i2am_04_two_references: which reference gave what?"""

from __future__ import annotations

from tools.workflows.catalog.parts import (
    GOLD,
    INFLUENCE,
    LILAC,
    ONE_RUN,
    R2G,
    Group,
    Node,
    Workflow,
    given,
    mapped,
    models,
    pictures,
)

TWO_NOTE = """# Two references: which gave what?

The model has two references here: the **scene**, one thing with a hole beside it, and the \
**object** that goes into the hole.

**Press Run.**

- **Reference Influence** colours every place by the reference it drew from and says in plain \
words what each one did: the object fills the mask of *Collect Attribution*, the scene is used \
outside it. The hole should have the object's colour.
- **One against the other** subtracts the object's map from the scene's: orange is where the \
object gave more, blue where the scene did.
- The two maps below show each reference alone.

**With your own model**, use as many references as you like, in the order the model gets them.
"""
TWO_REFERENCES = Workflow(
    "i2am_04_two_references",
    (
        (models(TWO_NOTE, 460),),
        (pictures("i2am_two", "scene", "object"), given()),
        (ONE_RUN,),
        (
            Group(
                "5 · Which gave what?",
                GOLD,
                (
                    (
                        Node(
                            "influence",
                            "I2AM_Influence",
                            wires={"attribution": ("collect", 0)},
                            **INFLUENCE,
                        ),
                    ),
                    (
                        Node(
                            "compare",
                            "I2AM_Compare",
                            "One against the other",
                            {"attribution": ("collect", 0), "other": ("collect", 0)},
                            {"reference": 1, "other_reference": 2},
                            **INFLUENCE,
                        ),
                    ),
                ),
            ),
            Group(
                "6 · Each reference alone",
                LILAC,
                (
                    (mapped("map_1", "From the scene", R2G, reference=1, scale="absolute"),),
                    (mapped("map_2", "From the object", R2G, scale="absolute"),),
                ),
            ),
        ),
    ),
    ("influence", "compare", "map_1", "map_2"),
)
