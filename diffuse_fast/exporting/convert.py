"""Convert a torch module to ONNX and write the file."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import __version__
from ..artifact.document import KEY, Document
from ..artifact.read_document import build as build_document
from ..errors import ArtifactError, ExportError, OutputError
from ..model import load
from ..runtimes import Network, network
from .example import example


def trace(torch: Any, module: Any, document: Document) -> Any:
    """The module as a torch program with positional inputs and a tensor as output."""

    class Positional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = module

        def forward(self, x: Any, t: Any, *cond: Any) -> Any:
            named = {c.name: value for c, value in zip(document.conditioning, cond, strict=True)}
            result = self.network(x, t, **named)
            return prediction_of(torch, result)

    # Two samples: torch specialises on a batch of one.
    inputs = tuple(torch.from_numpy(array) for array in example(document, 2).values())
    try:
        with torch.no_grad():
            return torch.export.export(Positional().eval(), inputs, dynamic_shapes=_dynamic_shapes(torch, document), strict=False)
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(f"torch cannot export the module: {_short(error)}") from error


def prediction_of(torch: Any, result: Any) -> Any:
    """The tensor in what a module returned.

    Raises:
        ExportError: there is none.
    """
    prediction = getattr(result, "sample", result)
    if not isinstance(prediction, torch.Tensor):
        raise ExportError(
            f"the module returns a {type(result).__name__}; it must return a tensor, or an object with one as .sample. Wrap it in "
            "a module whose forward picks the prediction."
        )
    return prediction


def _dynamic_shapes(torch: Any, document: Document) -> Any:
    """The dynamic dimensions, in the structure of the call. Unnamed, as networks that test their batch size reject named ones."""
    batch = {0: torch.export.Dim.DYNAMIC}
    cond = tuple(batch for _ in document.conditioning)
    return (batch, batch, cond) if cond else (batch, batch)


def build(torch: Any, traced: Any, document: Document, opset: int, draft: Path, max_single_file: int) -> tuple[list[Path], Network]:
    """Convert, write and open a draft. Returns its files, the model file first, and the network in onnxruntime.

    Raises:
        ExportError: the module cannot be converted to this opset, or onnxruntime cannot run the result.
    """
    document = build_document({**document.to_json(), "opset": opset})
    try:
        program = torch.onnx.export(
            traced,
            dynamo=True,
            opset_version=opset,
            input_names=list(example(document, 1)),
            output_names=[document.output],
            dynamic_shapes=_dynamic_shapes(torch, document),
            external_data=False,
            verbose=False,
            optimize=True,
        )
    except Exception as error:
        raise ExportError(f"torch cannot convert the module to opset {opset}: {_short(error)}") from error
    written = _write(program, document, draft, max_single_file)
    try:
        return written, network(load(draft), "onnx", threads=1)
    except ArtifactError as error:
        raise ExportError(f"the file exported at opset {opset} cannot be used: {error}") from error


def _write(program: Any, document: Document, draft: Path, max_single_file: int) -> list[Path]:
    """Write the program with its document; returns the files, the model file first."""
    import onnx

    # Before model_proto is made: a protobuf message has at most 2 GiB.
    weights = sum(w.const_value.nbytes for w in program.model.graph.initializers.values() if w.const_value is not None)
    proto = program.model_proto
    _strip(proto)
    # Sorted, without dates and paths, so that the same module gives the same bytes.
    text = json.dumps(document.to_json(), sort_keys=True, allow_nan=False)
    proto.metadata_props.add(key=KEY, value=text)
    proto.producer_name, proto.producer_version = "diffuse_fast", __version__
    external = draft.with_name(draft.name + ".data")
    external.unlink(missing_ok=True)  # from a draft at another opset; onnx would append to it
    try:
        if weights > max_single_file:
            # Small tensors stay in the file: shape inference reads shapes from them and does not open external data.
            onnx.save_model(
                proto, draft, save_as_external_data=True, all_tensors_to_one_file=True, location=external.name, size_threshold=1024
            )
        else:
            onnx.save_model(proto, draft)
    except OSError as error:
        raise OutputError(f"cannot write the model: {error}.") from error
    try:
        onnx.checker.check_model(os.fspath(draft), full_check=True)
    except Exception as error:
        raise ExportError(f"onnx.checker rejects the exported file: {_short(error)}") from error
    return [path for path in (draft, external) if path.exists()]


def _strip(proto: Any) -> None:
    """Remove the exporter's own metadata: stack traces, paths, names of Python modules."""

    def graph(g: Any) -> None:
        for part in (g, *g.node, *g.input, *g.output, *g.value_info, *g.initializer):
            part.ClearField("doc_string")
            part.ClearField("metadata_props")
        for node in g.node:
            attributes(node.attribute)

    def attributes(values: Any) -> None:
        for attribute in values:
            attribute.ClearField("doc_string")
            for sub in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                graph(sub)

    proto.ClearField("doc_string")
    proto.ClearField("metadata_props")
    graph(proto.graph)
    proto.graph.name = "network"
    for function in proto.functions:
        for part in (function, *function.node, *function.value_info):
            part.ClearField("doc_string")
            part.ClearField("metadata_props")
        for node in function.node:
            attributes(node.attribute)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the exporter's prints, log messages and deprecation warnings."""
    loggers = [logging.getLogger(n) for n in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "torch._export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _short(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"
    return text if len(text) <= 1500 else text[:1500] + " ..."
