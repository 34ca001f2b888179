"""Word Attribution: a prompt's words → their maps, and who got how much of the attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ...i2am.display import Colormap, Scale
from ...i2am.errors import I2AMError
from ...i2am.maps import ALL_STEPS, MEAN_FRAME, word_maps
from ...i2am.recording import Attribution, Direction, Recording, Word, find_prompt
from ...i2am.scores import fitting_mask, rank_sources, ranking_text
from ..drawing import draw_maps, maps_over
from ..host.prompt_tokens import EncodedPrompt, encode_prompt
from ..inputs import COLORMAP, OPACITY
from ..sockets import AttributionSocket

MAX_WORDS = 64  # maps at once


class WordAttribution(io.ComfyNode):
    """ATTRIBUTION, CLIP and the prompt → a map of each word, and a ranking."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_Words",
            display_name="Word Attribution",
            category="I2AM",
            description="Which word did what? Draws where the model attended to each word of the "
            "prompt, and ranks words and references by how much of its attention they got. Needs "
            "words turned on in Capture Attention.",
            search_aliases=["DAAM", "prompt", "token", "text", "which word", "heatmap", "I2AM"],
            is_output_node=True,
            inputs=[
                AttributionSocket.Input("attribution", tooltip="From Collect Attribution."),
                io.Clip.Input(
                    "clip",
                    tooltip="The CLIP that encoded the prompt, with the same Clip Skip and LoRAs.",
                ),
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="The prompt the picture was sampled with, exactly as it was. Another "
                    "text is refused, since its words would be put where others stood.",
                ),
                io.String.Input(
                    "words",
                    default="",
                    optional=True,
                    tooltip="The words to draw, with commas between them: red, blue dog. Several "
                    "in a row are taken together; dog#2 is the second dog. Leave empty for every "
                    "word.",
                ),
                io.Mask.Input(
                    "region",
                    optional=True,
                    tooltip="White on the part of the result to rank words and references in. If "
                    "left open, the whole result.",
                ),
                COLORMAP,
                OPACITY,
                io.Combo.Input(
                    "scale",
                    options=[scale.value for scale in (Scale.PER_MAP, Scale.SHARED)],
                    default=Scale.PER_MAP.value,
                    optional=True,
                    advanced=True,
                    tooltip="Per map stretches each word's map over all colours, which shows its "
                    "pattern. Shared keeps the words comparable with each other.",
                ),
                io.Boolean.Input(
                    "legend",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="Add a colour bar below the overlay and the heat map, with numbers "
                    "and what was measured.",
                ),
                io.Int.Input(
                    "time_group",
                    default=ALL_STEPS,
                    optional=True,
                    min=0,
                    max=4,
                    advanced=True,
                    tooltip="Which quarter of the recorded steps: 1 is the noisiest, 4 the last. "
                    "0 is the mean over all of them. Fewer than four steps form a group each.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="overlay",
                    tooltip="Each word's map over the result, one picture for each word.",
                ),
                io.Image.Output(display_name="heatmap", tooltip="The maps alone, in colour."),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="The values that were painted, 0 to 1, one mask for each word.",
                ),
                io.Image.Output(
                    display_name="sheet",
                    tooltip="All maps of a picture side by side, each under its word.",
                ),
                io.Float.Output(
                    display_name="shares",
                    is_output_list=True,
                    tooltip="The share of the model's attention that each word has, 0 to 1, in the "
                    "order of the maps: in the region, or over the whole result.",
                ),
                io.String.Output(
                    display_name="ranking",
                    tooltip="Words and references by how much of the attention they got.",
                ),
                AttributionSocket.Output(
                    display_name="attribution",
                    tooltip="The same attribution with these words, for Attribution Viewer and "
                    "Save Attribution.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        attribution: Attribution,
        clip: Any,
        text: str,
        words: str = "",
        region: Tensor | None = None,
        colormap: str = Colormap.INFERNO.value,
        opacity: float = 0.8,
        scale: str = Scale.PER_MAP.value,
        legend: bool = True,
        time_group: int = ALL_STEPS,
    ) -> io.NodeOutput:
        recording, towards = attribution.recording, Direction.REFERENCE_TO_GENERATED
        _check_words(recording)
        every, asked = _words(recording, encode_prompt(clip, text), words)
        size = attribution.size(towards, 0)
        if region is not None:
            region = fitting_mask(region, recording.header.run.batch, size, "region")
        maps = word_maps(recording, asked, time_group)
        pictures = attribution.video(towards, 0)
        over = maps_over(pictures, len(maps.labels), attribution, towards, 1, MEAN_FRAME)
        look = Colormap(colormap), opacity, Scale(scale), legend
        made = draw_maps(maps, pictures, over, size, look)
        ranking = rank_sources(recording, asked, region, time_group)
        said = ranking_text(ranking, "" if region is None else "region")
        shares = {one.name: float(one.inside.mean()) for one in ranking.sources if one.is_word}
        labelled = replace(attribution, words=every)
        return io.NodeOutput(
            *(made.overlay, made.heatmap, made.mask, made.sheet),
            *([shares[word.text] for word in asked], said, labelled),
            ui=made.shown(cls, said),
        )


def _check_words(recording: Recording) -> None:
    """Raises I2AMError if the recording holds no words."""
    if recording.header.prompts:
        return
    if not recording.header.plan.words:
        raise I2AMError(
            "This recording holds no words. Turn on words in Capture Attention and sample again."
        )
    raise I2AMError(
        f"No words were recorded: the attention of this {recording.header.architecture} model "
        "holds no token of the prompt that could be told apart (docs/models.md says of which "
        "models it does)."
    )


def _words(
    recording: Recording, prompt: EncodedPrompt, asked: str
) -> tuple[tuple[Word, ...], tuple[Word, ...]]:
    """A prompt → all its words, and those asked for, placed in the recording.

    Raises I2AMError if it is not the text that was sampled with, or does not hold such a word.
    """
    place = find_prompt(recording, prompt.encoding)
    if place is None:
        held = " and ".join(str(count) for count in recording.header.prompts)
        raise I2AMError(
            "This is not the text that the picture was sampled with. The recording holds a prompt "
            f"of {held} tokens; this text gives {prompt.encoding.shape[1]}, and they are not the "
            "same. Give the same text, CLIP, Clip Skip and LoRAs as the sampler's prompt had. "
            "Prompts that were averaged, or encoded together with pictures, cannot be read."
        )
    number, first = place

    def placed(word: Word) -> Word:
        tokens = tuple(token + first for token in word.tokens)
        return replace(word, tokens=tokens, prompt=number)

    every = tuple(placed(word) for word in prompt.words())
    names = dict.fromkeys(name.strip() for name in asked.split(",") if name.strip())
    chosen = tuple(placed(prompt.word(name)) for name in names) or every
    if not chosen:
        raise I2AMError("The text holds no words. Write the prompt the picture was sampled with.")
    if len(chosen) > MAX_WORDS:
        raise I2AMError(
            f"The prompt has {len(chosen)} different words, and at most {MAX_WORDS} can be drawn "
            "at once. Name the ones you want in words."
        )
    return tuple(dict.fromkeys((*every, *chosen))), chosen
