"""MNN: its converter, our files in a form that it converts, and a session that is exact to rounding.

The converter is called in its compiled module, never by the command ``mnnconvert`` around it: that runs ``pip install`` for a
logging package, in whatever environment it finds, and reports its use to a server.
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from pathlib import Path

import MNN
import numpy as np

import diffuse_fast as df
from diffuse_fast.onnx.graph import Graph, Node
from diffuse_fast.rewrites.group_norm_to_instance_norm import group_norm_to_instance_norm

from .networks import FOLDER, NETWORKS, artifact
from .peers.base import Unavailable

# The hint WINOGRAD_MEMORY_LEVEL at its lowest: tiles of 2x2 outputs, whose transforms divide by 2 at most. By MNN's own choice the
# error is 3e-4 at 28x28.
_HINT, _EXACT = 3, 1


def convert(source: Path, target: Path) -> Path:
    """Write a file of MNN's.

    Raises:
        Unavailable: the converter refuses the file.
    """
    draft = target.with_suffix(".draft")
    arguments = ["mnnconvert", "-f", "ONNX", "--modelFile", source, "--MNNModel", draft, "--bizCode", "bench"]
    code = f"import _tools; _tools.mnnconvert({[str(a) for a in arguments]!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode or not draft.exists():
        raise Unavailable(f"its converter failed: {' '.join((done.stderr or done.stdout).strip().splitlines()[-1:])}")
    return draft.rename(target)


def prepared(name: str) -> Path:
    """Our file of a network, converted: norms in the form that MNN runs fastest, Attention and Mish in basic operations."""
    target = FOLDER / f"{name}-prepared.mnn"
    if not target.exists():
        graph = df.load(artifact(name)).graph()
        group_norm_to_instance_norm(graph)
        graph.replace(lambda node: _attention(node, graph) if node.op == "Attention" else _mish(node, graph))
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "model.onnx"
            source.write_bytes(graph.to_bytes())
            convert(source, target)
    return target


class Session:
    """A network of ours on one thread of MNN, float32 to rounding, for one batch."""

    def __init__(self, name: str, batch: int):
        net, model = NETWORKS[name], df.load(artifact(name))
        self._interpreter = MNN.Interpreter(str(prepared(name)))
        self._interpreter.setSessionHint(_HINT, _EXACT)
        # "normal" is float32. So is "high", but it prints a line.
        self._session = self._interpreter.createSession({"backend": "CPU", "numThread": 1, "precision": "normal"})
        self.x, self.t = np.zeros((batch, *net.shape), np.float32), np.zeros(batch, model.time.dtype)
        inputs = {model.input: self.x, model.time.input: self.t, **net.conditioning(batch)}
        tensors = self._interpreter.getSessionInputAll(self._session)
        for key, tensor in tensors.items():
            self._interpreter.resizeTensor(tensor, inputs[key].shape)
        self._interpreter.resizeSession(self._session)
        self._inputs = [(tensor.getNumpyData(), inputs[key]) for key, tensor in tensors.items()]  # views of MNN's memory
        self._result = self._interpreter.getSessionOutput(self._session, model.output).getNumpyData()
        self.output = np.empty_like(self.x)

    def __call__(self, t: float) -> np.ndarray:
        self.t.fill(t)
        for view, array in self._inputs:
            np.copyto(view, array, casting="same_kind")
        if status := self._interpreter.runSession(self._session):
            raise RuntimeError(f"MNN failed with error code {status}")
        np.copyto(self.output, self._result.reshape(self.output.shape))
        return self.output


def _attention(node: Node, graph: Graph) -> list[Node]:
    """softmax(q·scale·kᵀ)·v, for 4-D inputs without a mask, as the benchmark's networks have."""
    (q, k, v), y = node.inputs[:3], node.outputs[0]
    assert not any(node.inputs[3:]), "a mask or a cache"
    scale = node.attributes.get("scale", 1 / math.sqrt(graph.values[q].shape[3]))
    scaled, transposed, logits, weights = (graph.new_name(y) for _ in range(4))
    return [
        Node("Mul", (q, graph.add_constant(y, np.array(scale, np.float32))), (scaled,)),
        Node("Transpose", (k,), (transposed,), {"perm": (0, 1, 3, 2)}),
        Node("MatMul", (scaled, transposed), (logits,)),
        Node("Softmax", (logits,), (weights,), {"axis": -1}),
        Node("MatMul", (weights, v), (y,)),
    ]


def _mish(node: Node, graph: Graph) -> list[Node] | None:
    """x·tanh(softplus(x)); None for other operations."""
    if node.op != "Mish":
        return None
    x, y = node.inputs[0], node.outputs[0]
    softplus, tanh = graph.new_name(y), graph.new_name(y)
    return [Node("Softplus", (x,), (softplus,)), Node("Tanh", (softplus,), (tanh,)), Node("Mul", (x, tanh), (y,))]
