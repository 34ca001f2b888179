"""docs/models.md says what the registry of architectures says."""

from __future__ import annotations

from tools.docs import model_table


def test_the_page_is_up_to_date() -> None:
    written = model_table.PAGE.read_text(encoding="utf-8")
    assert written == model_table.page(), "run python -m tools.docs.model_table"
