"""Tensors of the Open Inference Protocol v2, as JSON and with KServe's binary extension."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .refusals import refusal

HEADER = "Inference-Header-Content-Length"  # bytes of JSON in front of binary data
DTYPES = {
    "BOOL": "?",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
_NAMES = {np.dtype(dtype).newbyteorder("="): name for name, dtype in DTYPES.items()}

Scalar = bool | int | float | str


class Tensor(BaseModel):
    """An input."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=200)
    shape: list[int] = Field(max_length=16)
    datatype: str = Field(max_length=20)
    parameters: dict[str, Scalar] = {}
    data: Any = None


class Wanted(BaseModel):
    """An output that is asked for."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=200)
    parameters: dict[str, Scalar] = {}


class InferBody(BaseModel):
    """The JSON part of a request."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(default="", max_length=200)
    parameters: dict[str, Scalar] = {}
    inputs: list[Tensor] = Field(default=[], max_length=100)
    outputs: list[Wanted] = Field(default=[], max_length=100)


def read(content: bytes, header: str | None) -> tuple[InferBody, dict[str, np.ndarray]]:
    """Parse a request.

    Args:
        content: The body.
        header: The value of :data:`HEADER`, or None where the body is JSON only.

    Returns:
        The JSON part, and the inputs by name.

    Raises:
        HTTPException: 400, it is not what the protocol says.
    """
    if header is not None and not (header.isascii() and header.isdigit() and len(header) < 16 and int(header) <= len(content)):
        raise _invalid(f"{HEADER} is {header!r}; it must be the number of bytes of JSON.")
    end = len(content) if header is None else int(header)
    try:
        body = InferBody.model_validate_json(content[:end])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _invalid(f"{'.'.join(map(str, first['loc'])) or 'the body'}: {first['msg']}") from None
    inputs: dict[str, np.ndarray] = {}
    at = end
    for tensor in body.inputs:
        size = tensor.parameters.get("binary_data_size")
        if tensor.name in inputs:
            raise _invalid(f"input {tensor.name!r} is given twice.")
        if size is None:
            inputs[tensor.name] = _from_json(tensor)
            continue
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(content) - at:
            raise _invalid(f"input {tensor.name!r}: binary_data_size is {size!r}; {len(content) - at} bytes are left.")
        inputs[tensor.name] = _from_bytes(tensor, content[at : at + size])
        at += size
    if at != len(content):
        raise _invalid(f"{len(content) - at} bytes are left after the last input.")
    return body, inputs


def write(fields: dict[str, Any], outputs: dict[str, np.ndarray], binary: dict[str, bool]) -> tuple[bytes, dict[str, str]]:
    """A response: its body and headers.

    Args:
        fields: What stands beside ``outputs``.
        outputs: The outputs by name.
        binary: Which of them are sent as bytes.
    """
    described, tail = [], []
    for name, value in outputs.items():
        entry: dict[str, Any] = {"name": name, "shape": list(value.shape), "datatype": _NAMES[value.dtype]}
        if binary[name]:
            raw = np.ascontiguousarray(value.astype(DTYPES[entry["datatype"]], copy=False)).tobytes()
            entry["parameters"] = {"binary_data_size": len(raw)}
            tail.append(raw)
        else:
            entry["data"] = value.ravel().tolist()
        described.append(entry)
    head = json.dumps({**fields, "outputs": described}, allow_nan=False).encode()
    if not tail:
        return head, {"Content-Type": "application/json"}
    return b"".join([head, *tail]), {"Content-Type": "application/octet-stream", HEADER: str(len(head))}


def datatype(dtype: str) -> str:
    """The protocol's name of a NumPy type."""
    return _NAMES[np.dtype(dtype)]


def _dtype(tensor: Tensor) -> np.dtype:
    if tensor.datatype not in DTYPES:
        raise _invalid(f"input {tensor.name!r} has datatype {tensor.datatype!r}; known are {', '.join(DTYPES)}.")
    if any(length < 0 for length in tensor.shape):
        raise _invalid(f"input {tensor.name!r} has shape {tensor.shape}; lengths are at least 0.")
    return np.dtype(DTYPES[tensor.datatype])


def _from_bytes(tensor: Tensor, raw: bytes) -> np.ndarray:
    dtype = _dtype(tensor)
    if math.prod(tensor.shape) * dtype.itemsize != len(raw):
        raise _invalid(f"input {tensor.name!r} has {len(raw)} bytes, which is not {tensor.datatype} of shape {tensor.shape}.")
    return np.frombuffer(raw, dtype).reshape(tensor.shape)


def _from_json(tensor: Tensor) -> np.ndarray:
    dtype = _dtype(tensor)
    try:
        value = np.asarray(tensor.data)
        if value.dtype.kind not in "biuf" or value.size != math.prod(tensor.shape):
            raise ValueError
        with np.errstate(all="ignore"):
            kept = value.astype(dtype)
        if not np.isfinite(kept).all() or (dtype.kind in "iu" and not (kept == value).all()):
            raise ValueError
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise _invalid(f"input {tensor.name!r}: data must be {tensor.datatype} of shape {tensor.shape}.") from None
    return kept.reshape(tensor.shape)


def _invalid(message: str) -> Exception:
    return refusal(400, "invalid_argument", message)
