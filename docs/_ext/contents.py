"""The navigation, from the table ``contents`` of conf.py: a hidden toctree is added to the end of each page that it names."""

from __future__ import annotations

from typing import Any


def add_toctree(app: Any, name: str, source: list[str]) -> None:
    pages = app.config.contents.get(name)
    if not pages:
        return
    lines = [f"/{page}" for page in pages] if isinstance(pages, list) else [f"{title} </{page}>" for title, page in pages.items()]
    entries = "\n".join(lines)
    source[0] += f"\n\n```{{toctree}}\n:hidden:\n\n{entries}\n```\n"


def setup(app: Any) -> dict[str, bool]:
    app.add_config_value("contents", {}, "env")
    app.connect("source-read", add_toctree)
    return {"parallel_read_safe": True}
