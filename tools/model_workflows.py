"""The example workflows for models that people have: they need only the model files."""

from __future__ import annotations

from example_workflows import Workflow

MODEL_WORKFLOWS: tuple[Workflow, ...] = ()
