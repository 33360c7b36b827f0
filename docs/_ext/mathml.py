"""Equations as MathML, by docutils' own converter: they need no script and no network, and a faulty one fails the build."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.util import logging


def render(translator: Any, node: Any, *, block: bool) -> None:
    try:
        mathml = latex2mathml.tex2mathml(node.astext(), as_block=block)
    except MathError as error:
        logging.getLogger(__name__).warning("an equation is not understood: %s", error, location=node)
        mathml = ""
    tag = "div" if block else "span"
    translator.body.append(f'<{tag} class="equation">{mathml}</{tag}>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    inline = (lambda translator, node: render(translator, node, block=False), None)
    display = (lambda translator, node: render(translator, node, block=True), None)
    app.add_html_math_renderer("mathml", inline, display)
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True}
