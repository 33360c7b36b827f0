"""Docstrings as reStructuredText: stars that are not markup, as in ``(n, *shape)``, are escaped; a stand-in replaces torch."""

from __future__ import annotations

import re
from typing import Any

from sphinx.ext.autodoc.mock import _MockObject

STAR = re.compile(r"(``.*?``)|(?<![\w*\\])\*(?=\w)")


def escape_stars(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    for i, line in enumerate(lines):
        lines[i] = STAR.sub(lambda m: m[1] or r"\*", line)


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", escape_stars, priority=400)  # before napoleon
    _MockObject.__or__ = _MockObject.__ror__ = lambda self, other: self  # Tensor | None, when a module is run
    return {"parallel_read_safe": True}
