"""Every kind of model in ComfyUI is either read or refused with its own reason."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest


def _names(model: type) -> list[str]:
    """The classes of a model and its network, as in an instance of it."""
    networks = (
        name.rpartition(".")[2]
        for cls in model.__mro__
        if "__init__" in vars(cls)
        for name in re.findall(r"unet_model=([\w.]+)", inspect.getsource(cls.__init__))
        if name != "unet_model"
    )
    return [*(cls.__name__ for cls in model.__mro__), next(networks)]


def test_every_model(comfy: Any) -> None:
    from comfy import model_base

    architectures = comfy.pack("i2am.tokens.architectures")
    error = comfy.pack("i2am.errors").I2AMError
    models = [
        model
        for model in vars(model_base).values()
        if inspect.isclass(model) and issubclass(model, model_base.BaseModel)
    ]
    assert models
    unknown: list[str] = []
    for model in models:
        names = _names(model)
        try:
            architectures.find(names)
        except error:
            known = {*architectures.WITHOUT_REFERENCES, *architectures.NOT_YET}
            known |= {name for one in architectures.ARCHITECTURES for name in one.models}
            if not known & set(names):
                unknown.append(model.__name__)
    assert unknown == []


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("WAN21_Vace", "cannot read WAN21_Vace models yet: video with control frames"),
        ("ChromaRadiance", "Chroma models have no reference to watch: it ignores"),
    ],
)
def test_refusals(comfy: Any, model: str, words: str) -> None:
    from comfy import model_base

    architectures = comfy.pack("i2am.tokens.architectures")
    with pytest.raises(comfy.pack("i2am.errors").I2AMError, match=words):
        architectures.find(_names(getattr(model_base, model)))
