"""The page of models says what the registry of architectures says."""

from __future__ import annotations

import make_model_table


def test_the_page_is_up_to_date() -> None:
    written = make_model_table.PAGE.read_text(encoding="utf-8")
    assert written == make_model_table.page(), "run tools/make_model_table.py"
