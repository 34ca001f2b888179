"""The words of a prompt, and the encodings by which a prompt is known again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from torch import Tensor

from .half_tensors import read_tensors, tensors_metadata
from .header_json import FormatError
from .recording import Header, Recording

_ENCODINGS, _WORDS = "i2am.encodings", "i2am.words"
_MAX_VALUES = 64  # kept of each token
_MAX_LENGTH = 200  # characters of a word; a longer one is cut
_TINY = 1e-3  # of an encoding, whose values are about one


@dataclass(frozen=True)
class Word:
    """One word of a prompt: what it says and where it stands.

    tokens: its numbers in the prompt, in every text encoder the model reads. weight: of
    `(word:1.2)`. prompt: the number of the prompt among those of the recording.
    """

    text: str
    tokens: tuple[int, ...]
    weight: float = 1.0
    prompt: int = 0


def encodings_metadata(recording: Recording) -> dict[str, str]:
    """Recording → the entry of a file's metadata with its prompts' encodings, if it has any."""
    return tensors_metadata(_ENCODINGS, recording.encodings)


def read_encodings(metadata: Mapping[str, str], header: Header) -> dict[int, Tensor]:
    """A file's metadata → the encodings of its prompts, by number. Raises FormatError."""

    def check(number: int, shape: tuple[int, ...]) -> None:
        if not 0 <= number < len(header.prompts):
            raise ValueError(f"there is no prompt {number}")
        if len(shape) != 3 or shape[1] != header.prompts[number] or shape[2] > _MAX_VALUES:
            raise ValueError(f"an encoding of {shape} does not fit prompt {number}")
        if shape[0] not in (1, header.run.batch):
            raise ValueError(f"{shape[0]} encodings for {header.run.batch} pictures")

    return read_tensors(metadata, _ENCODINGS, check, "encodings")


def words_metadata(words: tuple[Word, ...]) -> dict[str, str]:
    """Words → the entry of a file's metadata that holds them; empty if there are none."""
    if not words:
        return {}
    return {_WORDS: json.dumps([asdict(word) for word in words])}


def read_words(metadata: Mapping[str, str], header: Header) -> tuple[Word, ...]:
    """A file's metadata → the words it holds. Raises FormatError."""
    if _WORDS not in metadata:
        return ()
    try:
        return tuple(_word(values, header) for values in json.loads(metadata[_WORDS]))
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise FormatError(f"its words cannot be read ({type(error).__name__}: {error})") from None


def _word(values: Mapping[str, object], header: Header) -> Word:
    prompt, weight = int(str(values["prompt"])), float(str(values["weight"]))
    if not 0 <= prompt < len(header.prompts) or not abs(weight) < 1e6:
        raise ValueError(f"there is no prompt {prompt}, or a weight of {weight}")
    tokens = tuple(int(str(token)) for token in list(values["tokens"]))  # type: ignore[call-overload]
    if not tokens or not all(0 <= token < header.prompts[prompt] for token in tokens):
        raise ValueError("a word has no tokens, or some that are not the prompt's")
    return Word(str(values["text"])[:_MAX_LENGTH], tokens, weight, prompt)


SAME = 0.05  # of a token's encoding: more than two devices' rounding, less than another word makes


def find_prompt(recording: Recording, encoding: Tensor) -> tuple[int, int] | None:
    """Which of a recording's prompts an encoded text is, and where in it it begins.

    encoding: as in `Recording.encodings`, (1, tokens, values). A model may pad a text, and nodes
    may put several one after the other. None if no prompt holds this text.
    """
    wanted = encoding[0].float()
    for number, known in recording.encodings.items():
        kept = known.float()
        for first in range(kept.shape[1] - len(wanted) + 1):
            part = kept[:, first : first + len(wanted)]
            off, size = (part - wanted).square().sum(-1), wanted.square().sum(-1)
            if bool((off <= (SAME * size.sqrt() + _TINY).square()).all()):
                return number, first
    return None
