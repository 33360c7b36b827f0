"""The examples of the documentation run: the Python blocks of README.md and docs/**/*.md, and every docstring of the package.

The blocks of a page run in order, in one namespace and in an empty folder. A block that cannot run here (a GPU, a network,
minutes) is preceded by a line ``<!-- skip: next "why" -->`` and shows up as a skipped test. A comment
``<!-- invisible-code-block: python``, code, ``-->`` runs and is not shown. (The notation is Sybil's.)
"""

from __future__ import annotations

import doctest
import importlib
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import diffuse_fast as df
from diffuse_fast.kernels import num_threads

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for file in (ROOT / "diffuse_fast").rglob("*.py")
    if ">>> " in file.read_text(encoding="utf-8")
)

SLOW = ("docs/tutorials/train.md",)  # it exports a network: seconds on a quiet machine, minutes on a busy one

BLOCK = re.compile(
    r"(?:^<!-- skip: next \"(?P<skip>[^\"]+)\" -->\n)?"
    r"(?:^```python\n(?P<shown>.*?)^```$|^<!-- invisible-code-block: python\n(?P<hidden>.*?)^-->$)",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    code: str
    skip: str | None


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, m.start("shown" if m["shown"] else "hidden")) + 1, m["shown"] or m["hidden"], m["skip"])
        for m in BLOCK.finditer(text)
    ]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def pages() -> list[object]:
    """The pages with a block that runs."""
    found = [page for page in PAGES if any(not block.skip for block in blocks(page))]
    return [pytest.param(page, marks=[pytest.mark.slow] if named(page) in SLOW else [], id=named(page)) for page in found]


@pytest.mark.parametrize("page", pages())
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = num_threads()
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.skip:
            continue
        if block.code.lstrip().startswith(">>>"):
            example = doctest.DocTestParser().get_doctest(block.code, {}, named(page), named(page), block.line - 1)
            result = doctest.DocTestRunner().run(example)
            assert result.failed == 0
        else:
            # Blank lines first, so that a traceback names the line of the page.
            exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), names)
    df.set_num_threads(threads)


@pytest.mark.parametrize("block", [b for page in PAGES for b in blocks(page) if b.skip], ids=lambda b: f"{named(b.page)}:{b.line}")
def test_a_block_that_cannot_run_here(block):
    compile(block.code, str(block.page), "exec")
    pytest.skip(block.skip)


def test_no_page_hides_a_block_from_the_collector():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(re.findall(r"^ *```(?:python|py|pycon)\b", text, re.MULTILINE)) == sum(
            1 for m in BLOCK.finditer(text) if m["shown"] is not None
        ), page


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_the_docstrings_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
    if result.attempted == 0:
        pytest.skip("its examples are marked +SKIP: they take minutes, or need a GPU or a download")
