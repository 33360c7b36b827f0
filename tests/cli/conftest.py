"""Commands run in this process, in an empty folder."""

from __future__ import annotations

import logging

import pytest

pytest.importorskip("typer")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """``run("sample", "digits", ...)``: the result, with ``exit_code``, ``stdout`` and ``stderr``."""
    from typer.testing import CliRunner

    from diffuse_fast.cli.app import app

    monkeypatch.chdir(tmp_path)
    log, root = logging.getLogger("diffuse_fast"), logging.getLogger()
    level, handlers = log.level, list(root.handlers)
    yield lambda *args: CliRunner().invoke(app, [str(a) for a in args])
    # --debug sets these for the process, which here goes on with other tests.
    log.setLevel(level)
    root.handlers[:] = handlers
