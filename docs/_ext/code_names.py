"""Links from code to the API: every inline ``df.name`` leads to its entry; one without an entry fails the build.

Types in signatures are named by the module that defines them, while the API shows public names: both lead to the same entry.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

NAME = re.compile(r"(?:df|diffuse_fast)((?:\.[A-Za-z]\w*)+)(?:\(.*\))?")


class LinkCodeNames(SphinxPostTransform):
    """Make a reference of an inline literal that is the name of a public object."""

    default_priority = 5  # before references are resolved

    def run(self, **_: Any) -> None:
        objects = self.env.domains["py"].objects
        for literal in list(self.document.findall(nodes.literal)):
            matched = NAME.fullmatch(literal.astext())
            inside = isinstance(literal.parent, nodes.reference | addnodes.pending_xref)
            if matched is None or inside or not isinstance(literal.parent, nodes.Element):
                continue
            target = "diffuse_fast" + matched[1]
            if target not in objects and not literal.astext().startswith("df."):
                continue  # a module or an internal name, spelt out
            xref = addnodes.pending_xref(
                "", literal.deepcopy(), refdomain="py", reftype="obj", reftarget=target, refexplicit=True, refdoc=self.env.docname
            )
            xref.source, xref.line = literal.source, literal.line
            literal.parent.replace(literal, xref)


def find_public(app: Any, env: Any, node: Any, content: Any) -> Any:
    """The entry of a public object that a docstring or signature names by its module, or by its bare name."""
    if node.get("refdomain") != "py":
        return None
    domain = env.domains["py"]
    suffix = "." + node["reftarget"].rpartition(".")[2]
    types = domain.objtypes_for_role(node["reftype"]) or ()
    found = [name for name, entry in domain.objects.items() if name.endswith(suffix) and entry.objtype in types]
    if not found:
        return None
    name = min(found, key=lambda name: (name.count("."), name))  # df.sample before a method sample
    entry = domain.objects[name]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, name)


def setup(app: Any) -> dict[str, bool]:
    app.add_post_transform(LinkCodeNames)
    app.connect("missing-reference", find_public)
    return {"parallel_read_safe": True}
