"""The table of handlers."""

from __future__ import annotations

from collections.abc import Callable

from ..call import Call
from ..lowering import Value

Handler = Callable[[Call], Value | tuple[Value, ...]]

HANDLERS: dict[str, Handler] = {}


def handles(*operators: str) -> Callable[[Handler], Handler]:
    """Register a handler of ONNX operators. It returns the outputs; a single one may stand alone."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(operators, handler))
        return handler

    return register
