from __future__ import annotations

import pytest

from tests.compiling.library import PATH, Library


@pytest.fixture(scope="session")
def library():
    if not PATH.exists():
        pytest.skip("there is no build/core/libdiffuse_fast.so; `make core` builds it")
    return Library()
