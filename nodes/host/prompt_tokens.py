"""ComfyUI's text encoders: which tokens of a conditioning each word of a prompt became.

Nothing is assumed about how a model's encoders are put together. They are watched while they encode
the text: where a row that one of them gives is found again in the conditioning, there its token is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from comfy.sd1_clip import (
    ClipTokenWeightEncoder,
    escape_important,
    token_weights,
    unescape_important,
)
from torch import Tensor

from ...i2am.errors import I2AMError
from ...i2am.recording import Word
from .model_facts import encoding_of

_TEXTS = (
    "cond",
    "conditioning_llama3",
)  # what an encoder's output holds for the model to attend to
_EMBEDDING = "\ufffc"  # in place of the tokens of a textual inversion
_BROKEN = "\ufffd"  # what a tokenizer makes of a part of a character
# Scripts without spaces between words.
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]")
_WORD = re.compile(rf"{_EMBEDDING}|[^\W_]+(?:['’-][^\W_]+)*")
_NUMBERED = re.compile(r"(.*\S)\s*#\s*(\d+)")

Pairs = list[
    list[tuple[Any, ...]]
]  # (token, weight, …) of each piece that an encoder takes at once


@dataclass(frozen=True)
class EncodedPrompt:
    """A text as ComfyUI encodes it.

    encoding: as in `Recording.encodings`. lines: what each text encoder the model reads made of it.
    """

    encoding: Tensor
    lines: tuple[Line, ...]

    def words(self) -> tuple[Word, ...]:
        """Every different word, in the order of the text."""
        return tuple(self.word(name) for name in self._names())

    def _names(self) -> list[str]:
        """Every different word as the first encoder reads it."""
        return list(dict.fromkeys(name for line in self.lines[:1] for name in line.names()))

    def word(self, asked: str) -> Word:
        """A word, or several in a row, with all places where it occurs; `word#2` is the second.

        Raises I2AMError if the text does not hold it.
        """
        match = _NUMBERED.fullmatch(asked.strip())
        name, nth = (match[1], int(match[2])) if match else (asked.strip(), 0)
        tokens: list[int] = []
        weight = 1.0
        for line in self.lines:
            found = line.find(name)
            if nth:
                found = found[nth - 1 : nth]
            for places, own in found:
                tokens += (token for token in places if token not in tokens)
                weight = own
        if not tokens:
            there = ", ".join(self._names())
            raise I2AMError(
                f"The prompt does not hold “{asked.strip()}”. Its words are: {there}. Write one of "
                "them, several in a row, or word#2 for the second time it occurs."
            )
        return Word(asked.strip(), tuple(tokens), weight)


@dataclass(frozen=True)
class Line:
    """A text as one encoder reads it.

    text: in lower case. owners: for each character, the unit it belongs to, or -1. units: the
    tokens of each, by number in the conditioning, and its weight.
    """

    text: str
    owners: tuple[int, ...]
    units: tuple[tuple[tuple[int, ...], float], ...]

    def names(self) -> list[str]:
        """The words, as they come; a script without spaces, unit by unit."""
        names: list[str] = []
        for match in _WORD.finditer(self.text):
            if not _UNSPACED.search(match[0]):
                names.append(match[0])
                continue
            last = -1
            for at in range(*match.span()):
                if self.owners[at] == last:
                    names[-1] += self.text[at]
                else:
                    names.append(self.text[at])
                last = self.owners[at]
        return names

    def find(self, name: str) -> list[tuple[tuple[int, ...], float]]:
        """Where a word or several in a row occur: the tokens of each time, and their weight."""
        wanted = r"\s*".join(re.escape(part) for part in _parts(name.casefold()))
        if not wanted:
            return []
        edge = "" if _UNSPACED.search(name) else r"(?<![^\W_])"
        end = "" if _UNSPACED.search(name) else r"(?![^\W_])"
        found: list[tuple[tuple[int, ...], float]] = []
        for match in re.finditer(edge + wanted + end, self.text):
            units = dict.fromkeys(n for n in self.owners[slice(*match.span())] if n >= 0)
            tokens = tuple(token for n in units for token in self.units[n][0])
            if tokens:
                found.append((tokens, self.units[next(iter(units))][1]))
        return found


def encode_prompt(clip: Any, text: str) -> EncodedPrompt:
    """A text → how ComfyUI encodes it, and which tokens its words became.

    Raises I2AMError if the encoder's parts cannot be told apart in what it gives.
    """
    numbered: dict[str, Pairs] = clip.tokenize(text, return_word_ids=True)
    numbered = {name: pairs for name, pairs in numbered.items() if isinstance(pairs, list)}
    tokens: dict[str, Pairs] = clip.tokenize(text)
    with _observed(clip) as seen:
        output = clip.encode_from_tokens(tokens, return_pooled=True, return_dict=True)
    texts = [output[name] for name in _TEXTS if name in output]
    encoding = encoding_of(texts)
    assert encoding is not None
    rows = torch.nn.utils.rnn.pad_sequence(
        [row for one in texts for row in (one if one.ndim == 3 else one[:, -1])[0].float()],
        batch_first=True,
    )
    lines: list[Line] = []
    for pairs, given in seen:
        name = next((n for n, own in tokens.items() if own is pairs), "")
        shift = _shift(given, rows)
        if name in numbered and shift is not None:
            tokenizer = _tokenizer(clip.tokenizer, name)
            lines.append(_line(text, numbered[name], tokenizer, shift, len(rows)))
    if not any(line.units for line in lines):
        raise I2AMError(
            "The words of this text cannot be found in what the text encoder gives. Word "
            "Attribution cannot read this encoder yet."
        )
    return EncodedPrompt(encoding, tuple(line for line in lines if line.units))


@contextmanager
def _observed(clip: Any) -> Iterator[list[tuple[Pairs, Tensor]]]:
    """Watches the encoders of a CLIP: what each is given, and its rows, (tokens, values)."""
    seen: list[tuple[Pairs, Tensor]] = []
    modules = clip.cond_stage_model.modules()
    encoders = [module for module in modules if isinstance(module, ClipTokenWeightEncoder)]

    def observe(encoder: Any) -> None:
        encode = encoder.encode_token_weights

        def observed(pairs: Pairs, *args: Any, **kwargs: Any) -> Any:
            made = encode(pairs, *args, **kwargs)
            rows = made[0] if made[0].ndim == 3 else made[0][:, -1]
            seen.append((pairs, rows[0].float()))
            return made

        encoder.encode_token_weights = observed

    try:
        for encoder in encoders:
            observe(encoder)
        yield seen
    finally:
        for encoder in encoders:
            vars(encoder).pop("encode_token_weights", None)


def _shift(given: Tensor, rows: Tensor) -> int | None:
    """Where an encoder's rows, (tokens, values), begin among those of a conditioning.

    Negative if the first of them were cut off; None if they are not there. Encoders may stand one
    after the other, or beside each other in the values of a row.
    """
    width = given.shape[1]
    for row in range(len(given) - 1, -1, -1):
        probe = given[row, : min(8, width)]
        if not bool(probe.any()) or rows.shape[1] < width:
            continue
        windows = rows.unfold(1, len(probe), 1)  # (rows, columns, values)
        for place, column in (windows == probe).all(-1).nonzero().tolist():
            shift = place - row
            first, last = max(0, -shift), min(len(given), len(rows) - shift)
            own = given[first:last]
            there = rows[first + shift : last + shift, column : column + width]
            if there.shape == own.shape and torch.equal(there, own):
                return shift
        return None
    return None


def _tokenizer(tokenizers: Any, name: str) -> Any:
    """The tokenizer of one encoder."""
    for attribute in (name, f"clip_{name}"):
        if hasattr(getattr(tokenizers, attribute, None), "inv_vocab"):
            return getattr(tokenizers, attribute)
    raise I2AMError(f"Word Attribution does not know the tokenizer of the text encoder “{name}”.")


def _line(text: str, pairs: Pairs, tokenizer: Any, shift: int, count: int) -> Line:
    """What an encoder read → the part of it that is the prompt.

    shift, count: where its tokens begin in the conditioning, and how many that has.
    """
    flat = [one for piece in pairs for one in piece]
    places = [place for place in range(len(flat)) if flat[place][2] != 0]  # no start, end, padding
    written: list[str] = []
    owners: list[int] = []
    units: list[tuple[tuple[int, ...], float]] = []
    for group in _units(flat, places, tokenizer):
        said, starts, ends = _said([flat[place][0] for place in group], tokenizer)
        padded = " " * starts + said + " " * ends
        written.append(padded)
        owners += [-1] * starts + [len(units)] * len(said) + [-1] * ends
        numbers = (place + shift for place in group)
        tokens = tuple(number for number in numbers if 0 <= number < count)
        units.append((tokens, float(flat[group[0]][1])))
    own, own_owners = _own_part("".join(written), owners, text)
    return Line(own, tuple(own_owners), tuple(units))


def _units(flat: list[Any], places: list[int], tokenizer: Any) -> Iterator[list[int]]:
    """Tokens that only together make whole characters, or one textual inversion."""
    group: list[int] = []
    for place in places:
        token = flat[place][0]
        if isinstance(token, Tensor):
            if group and not isinstance(flat[group[0]][0], Tensor):
                yield group
                group = []
            group.append(place)
            continue
        if group and isinstance(flat[group[0]][0], Tensor):
            yield group
            group = []
        if not isinstance(token, int):
            continue  # a picture within the text
        group.append(place)
        if _BROKEN not in tokenizer.decode([flat[one][0] for one in group]) or len(group) > 4:
            yield group
            group = []
    if group:
        yield group


def _said(tokens: list[Any], tokenizer: Any) -> tuple[str, int, int]:
    """What some tokens say, in lower case, and whether a word starts before and ends after them."""
    if isinstance(tokens[0], Tensor):
        return _EMBEDDING, 1, 1
    pieces = [str(tokenizer.inv_vocab.get(token, "")) for token in tokens]
    said = tokenizer.decode(tokens).casefold()
    starts = pieces[0].startswith(("▁", "Ġ", "Ċ")) or said[:1].isspace()
    ends = pieces[-1].endswith("</w>") or said[-1:].isspace()
    return said.strip(), int(starts), int(ends)


def _own_part(whole: str, owners: list[int], text: str) -> tuple[str, list[int]]:
    """What an encoder read → the prompt in it, in the prompt's own spelling, with its owners.

    An encoder may have a template around it, the last time it occurs, and put spaces elsewhere or
    nowhere. If it does not hold the prompt letter by letter, everything it read is taken.
    """
    at = [place for place, letter in enumerate(whole) if not letter.isspace()]
    squeezed = "".join(whole[place] for place in at)
    for own in (_plain(text), text.casefold()):  # with weights read, and taken as they are written
        letters = "".join(own.split())
        first = squeezed.rfind(letters)
        if letters and first >= 0:
            following = iter(at[first : first + len(letters)])
            return own, [-1 if letter.isspace() else owners[next(following)] for letter in own]
    return whole, owners


def _plain(text: str) -> str:
    """A prompt without its weights, and with its textual inversions as one character each."""
    parts = token_weights(escape_important(text), 1.0)
    plain = "".join(unescape_important(part) for part, _ in parts)
    return re.sub(r"(?<!\S)embedding:\S+", _EMBEDDING, plain).casefold()


def _parts(name: str) -> list[str]:
    """A word cut where an encoder may put a space: at spaces and around punctuation."""
    return re.findall(r"[^\W_]+|[^\w\s]|_", name)
