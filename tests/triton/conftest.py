"""The compiler's helper as a fixture: it loads triton, and only where it is asked for."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ahead_of_time(tmp_path_factory):
    """The module ahead_of_time.py; it compiles anew, whatever an earlier run left."""
    spec = importlib.util.spec_from_file_location("ahead_of_time", Path(__file__).parent / "ahead_of_time.py")
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)  # dataclasses look for their module
    before = os.environ.get("TRITON_CACHE_DIR")
    os.environ["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    spec.loader.exec_module(module)
    yield module
    del os.environ["TRITON_CACHE_DIR"]
    if before is not None:
        os.environ["TRITON_CACHE_DIR"] = before
