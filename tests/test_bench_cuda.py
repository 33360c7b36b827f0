"""``python -m bench --device cuda`` on a machine without a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from diffuse_fast.engine.devices.choose import torch_reasons


def test_it_says_what_is_missing_with_a_status_of_its_own(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("rich")
    if not (missing := torch_reasons()):
        pytest.skip("this machine has a GPU")
    path = tmp_path / "figures.json"
    command = [sys.executable, "-m", "bench", "--device", "cuda", "--json", path]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert missing[0] in done.stdout
    assert not path.exists()
