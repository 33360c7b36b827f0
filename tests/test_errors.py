"""The errors: each is what a caller would expect, and goes through pickle and copy, as a pool of processes sends it."""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
from pathlib import Path

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast import errors

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
KEYWORDS = {errors.NonFiniteError: {"row": 3, "samples": (0, 7)}, errors.QueueFullError: {"retry_after": 1.5}}

ROUND_TRIPS = {
    **{f"pickle {n}": (lambda e, n=n: pickle.loads(pickle.dumps(e, n))) for n in range(pickle.HIGHEST_PROTOCOL + 1)},
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("trip", ROUND_TRIPS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_every_error_can_be_pickled_and_copied(kind, trip):
    error = kind("what was given, and what to do", **KEYWORDS.get(kind, {}))
    error.add_note("a note")
    back = ROUND_TRIPS[trip](error)
    assert type(back) is kind and str(back) == str(error) and back.args == error.args
    assert back.__dict__ == error.__dict__ and back.__notes__ == ["a note"]


def test_a_raised_error_can_be_pickled():
    with pytest.raises(errors.NonFiniteError) as caught:
        df.sample(lambda x, t: x * np.nan, 3, 4, shape=(2,), schedule=df.Schedule.linear(), prediction_type="epsilon")
    back = pickle.loads(pickle.dumps(caught.value))
    assert (back.row, back.samples, str(back)) == (0, (0, 1, 2), str(caught.value))


def test_there_are_no_errors_elsewhere():
    """What the tests above would miss: every error of the package is in ``errors``."""
    package = Path(df.__file__).parent
    elsewhere = [
        (path.relative_to(package).as_posix(), node.name)
        for path in package.rglob("*.py")
        if path != package / "errors.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith(("Error", "Exception")) for base in node.bases)
    ]
    assert elsewhere == []


@pytest.mark.parametrize(
    ("old", "new"),
    [("KernelUnavailableError", errors.UnavailableError), ("RuntimeUnavailableError", errors.MissingDependencyError)],
)
def test_old_names_are_aliases_that_warn(old, new):
    with pytest.warns(DeprecationWarning, match=f"{old} was renamed to errors.{new.__name__}"):
        assert getattr(errors, old) is new
