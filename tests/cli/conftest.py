"""Commands run in this process, in an empty folder."""

from __future__ import annotations

import pytest

pytest.importorskip("typer")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """``run("sample", "digits", ...)``: the result, with ``exit_code``, ``stdout`` and ``stderr``."""
    from typer.testing import CliRunner

    from diffuse_fast.cli.app import app

    monkeypatch.chdir(tmp_path)
    return lambda *args: CliRunner().invoke(app, [str(a) for a in args])
