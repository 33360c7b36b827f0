"""Settings of the documentation site; ``make docs`` builds it into out/docs.

The pages are the Markdown files of this folder and read well on GitHub too, so they carry no directives of Sphinx: what the site
adds (its navigation, links from code names to the API, equations) is done here and in ``_ext/``.
"""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]

# The package is that of the checkout, with the compiled core of the installed one.
for core in Path(sysconfig.get_path("platlib"), "diffuse_fast").glob("_core.*"):
    if core.suffix in (".so", ".pyd"):
        spec = importlib.util.spec_from_file_location("diffuse_fast._core", core)
        sys.modules["diffuse_fast._core"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["diffuse_fast._core"])

project = "diffuse_fast"
author = "the authors of diffuse_fast"
version = release = "0.1.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "code_names", "contents", "docstrings", "mathml"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["_ext"]
nitpicky = True
highlight_language = "text"  # of a block that names none

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# ---- The navigation: the pages of each section, in their order ------------------------------------------------------------------

TUTORIALS = ("sample", "train", "guidance-and-requests", "few-steps", "deploy")
API = ("sampling", "plans", "schedules", "models", "training", "learning", "interop", "theory", "errors")
GUIDE = [
    "features",
    "command-line",
    "solvers",
    "serving",
    "runtimes",
    "native",
    "compiled",
    "gpu",
    "artifact",
    "training",
    "learned-solvers",
    "quality",
    "emoji",
]


def numbered(folder: str, pattern: str = "[0-9]*.md") -> list[str]:
    return [f"{folder}/{path.stem}" for path in sorted((DOCS / folder).glob(pattern))]


contents = {
    "index": {
        "Start": "start",
        "Tutorials": "tutorials/README",
        "Coming from": "coming-from",
        "Guide": "guide",
        "Theory": "theory/README",
        "API": "api/README",
        "Benchmarks": "benchmarks",
        "Design": "design",
    },
    "tutorials/README": [f"tutorials/{page}" for page in TUTORIALS],
    "guide": GUIDE,
    "theory/README": numbered("theory"),
    "api/README": [f"api/{page}" for page in API],
    "benchmarks": numbered("benchmarks", "*.md"),
    "design": ["architecture", "decisions/README"],
    "decisions/README": numbered("decisions"),
}

# ---- The API, from the docstrings -----------------------------------------------------------------------------------------------

autodoc_mock_imports = ["torch"]  # the training wing is imported for its docstrings only
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False

# Types in signatures may be another library's or internal; names in prose must have an entry.
nitpick_ignore_regex = [("py:class", ".*"), ("py:mod", r"diffuse_fast\..*"), ("py:data", ".*")]

# ---- The pages ------------------------------------------------------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = "diffuse_fast"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "navbar_align": "left",
    "header_links_before_dropdown": 8,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "secondary_sidebar_items": ["page-toc"],
}
html_sidebars = {"index": [], "start": []}
