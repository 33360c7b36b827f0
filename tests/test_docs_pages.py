"""The pages of the documentation hold together: links, the API pages, figures that stand twice, commands, other examples.

``make docs`` checks more (references, docstrings); these checks need no environment of its own.
"""

from __future__ import annotations

import importlib
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

import diffuse_fast as df
from diffuse_fast.artifact import read_document

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^()\s]+)\)")


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page):
    for link in LINK.findall(FENCE.sub("", text(page))):
        if link.startswith(("http://", "https://")):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{named(page)}: {link}"
        assert not anchor or anchor in anchors(file), f"{named(page)}: {link}"


def test_the_paths_that_pages_name_exist():
    package = sorted(path.name for path in (ROOT / "diffuse_fast").iterdir() if path.is_dir() and path.name != "__pycache__")
    places = "|".join(["diffuse_fast", "csrc", "tests", "bench", "docs", "examples", *package])
    for page in PAGES:
        for path in re.findall(rf"`((?:{places})/[\w./-]+)`", text(page)):
            assert (ROOT / path).exists() or (ROOT / "diffuse_fast" / path).exists(), f"{named(page)}: {path}"


def test_every_public_name_has_one_entry_in_the_api():
    entries = re.findall(
        r"^\.\. (?:auto\w+|py:module):: diffuse_fast\.(\w+)$", "".join(map(text, (DOCS / "api").glob("*.md"))), re.M
    )
    public = sorted(set(df.__all__) - {"__version__"})
    assert sorted(name for name in entries if name in public) == public


@pytest.mark.parametrize("page", sorted((DOCS / "api").glob("*.md")), ids=named)
def test_what_the_api_documents_exists(page):
    for name in re.findall(r"^\.\. auto\w+:: (diffuse_fast[\w.]*)$", text(page), re.MULTILINE):
        found, module = None, name
        while found is None:
            try:
                found = importlib.import_module(module)
            except ModuleNotFoundError:
                module = module.rpartition(".")[0]
        for part in name.removeprefix(module).split(".")[1:]:
            found = getattr(found, part)


def test_the_figures_of_readme_are_those_of_the_benchmarks():
    rows = [
        line
        for line in text(ROOT / "README.md").splitlines()
        if re.match(r"\| (\*\*diffuse_fast|torch|onnxruntime \+|OpenVINO \+)", line)
    ]
    assert len(rows) == 5
    assert set(rows) <= set(text(DOCS / "benchmarks.md").splitlines())


def test_the_front_page_of_the_benchmarks_is_short():
    assert len(text(DOCS / "benchmarks.md").splitlines()) <= 120


def test_decisions_are_numbered_dated_and_listed():
    notes = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    index = text(DOCS / "decisions" / "README.md")
    assert [note.name[:4] for note in notes] == [f"{i:04}" for i in range(1, len(notes) + 1)]
    for note in notes:
        title, _, date = text(note).splitlines()[:3]
        assert title.startswith(f"# {note.name[:4]}. ") and re.fullmatch(r"\d{4}-\d\d-\d\d", date)
        assert f"| [{note.name[:4]}]({note.name}) | {date} | {title.partition('. ')[2]} |" in index


def test_the_artifact_that_the_page_shows_is_the_bundled_one():
    shown = json.loads(re.search(r"^```json\n(.*?)^```$", text(DOCS / "artifact.md"), re.M | re.S)[1])
    read_document.parse(json.dumps(shown))
    bundled = df.load("digits").to_json()
    assert shown == {**{k: v for k, v in bundled.items() if k != "plans"}, "version": 1, "training": {}}


def test_the_configuration_that_the_page_shows_is_accepted(tmp_path):
    config_section = pytest.importorskip("diffuse_fast.training.config.config_section")
    shown = re.search(r"^```toml\n(.*?)^```$", text(DOCS / "training.md"), re.M | re.S)[1]
    assert set(tomllib.loads(shown)) >= {"data", "network", "train"}
    (tmp_path / "faces.toml").write_text(shown, encoding="utf-8")
    assert config_section.read_config(tmp_path / "faces.toml")


def commands() -> list[tuple[Path, str]]:
    lines = ((page, line) for page in PAGES for block in FENCE.findall(text(page)) for line in block.splitlines())
    return [(page, line.partition(" #")[0]) for page, line in lines if line.startswith("diffuse-fast ")]


def test_the_commands_of_the_pages_exist():
    typer = pytest.importorskip("typer")
    from diffuse_fast.cli.app import app

    known = typer.main.get_command(app).commands
    found = commands()
    assert len(found) > 20
    for page, line in found:
        _, name, *words = shlex.split(line)
        options = {option for p in known[name].params for option in (*p.opts, *p.secondary_opts)} | {"--help"}
        used = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert used <= options, f"{named(page)}: {line}"
