"""The pages of the theory name functions that exist, and all of ``df.theory``. Their examples run in ``test_docs_examples.py``."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

import diffuse_fast as df

PAGES = sorted((Path(__file__).parents[1] / "docs" / "theory").glob("*.md"))
CHAPTERS = [page for page in PAGES if page.name[0].isdigit()]


def names(page: Path) -> list[str]:
    return re.findall(r"`((?:df|diffuse_fast)(?:\.\w+)+)`", page.read_text(encoding="utf-8"))


def found(name: str) -> object:
    first, *rest = name.split(".")
    at = df
    for i, part in enumerate(rest):
        if first == "diffuse_fast" and inspect.ismodule(at) and not hasattr(at, part):
            at = importlib.import_module(".".join(["diffuse_fast", *rest[: i + 1]]))
        else:
            at = getattr(at, part)
    return at


def test_there_is_a_page_for_every_chapter():
    assert [page.name[0] for page in CHAPTERS] == list("1234567")
    index = (PAGES[0].parent / "README.md").read_text(encoding="utf-8")
    assert all(page.name in index for page in CHAPTERS)


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_every_function_it_names_exists(page):
    assert names(page)
    for name in names(page):
        assert callable(found(name)), name


def test_the_pages_name_all_of_the_theory():
    named = {name.removeprefix("df.theory.") for page in CHAPTERS for name in names(page) if name.startswith("df.theory.")}
    assert named == {name for name in df.theory.__all__ if callable(getattr(df.theory, name))}


def test_the_theory_needs_no_torch():
    import subprocess
    import sys

    heavy = "{'torch', 'scipy', 'onnxruntime'}"
    code = f"import sys, diffuse_fast as df; df.theory.elbo; df.likelihood; assert not {heavy} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
