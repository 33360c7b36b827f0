"""The page at ``/``: its files; and, where playwright and a Chromium are installed, what a user does with it."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from diffuse_fast.serving.http import page
from tests.serving.http.servers import serving, until

FOLDER = Path(page.__file__).parent
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def test_the_page_and_its_parts_are_sent(server):
    with server.client() as client:
        index = client.get("/")
        assert index.headers["content-type"].startswith("text/html")
        assert "default-src 'self'" in index.headers["content-security-policy"]
        parts = set(re.findall(r'(?:src|href)="(/page/[^"]+)"', index.text))
        assert {"/page/app.js", "/page/style.css", "/page/icon.svg"} <= parts
        for script in FOLDER.glob("*.js"):
            parts |= set(re.findall(r'from "([^"]+)"', script.read_text(encoding="utf-8")))
        for part in parts:
            assert client.get(part).status_code == 200, part
        for name in ("__init__.py", "..%2fapp.py", "missing.js"):
            assert client.get(f"/page/{name}").status_code == 404


def test_the_page_loads_nothing_from_elsewhere():
    for path in FOLDER.iterdir():
        if path.suffix in (".html", ".css", ".js"):
            text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
            assert "http:" not in text and "https:" not in text and " style=" not in text and " onclick" not in text, path.name


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs a Chromium (CHROMIUM names it)")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM)
        yield found
        found.close()


@pytest.fixture
def opened(browser, server):
    """``opened(width, **options)``: the page in a fresh context. Fails if the page logs an error."""
    contexts, said = [], []

    def open_page(width: int = 1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 850}, **options)
        contexts.append(context)
        new = context.new_page()
        new.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        new.on("pageerror", lambda error: said.append(str(error)))
        new.goto(server.url)
        new.get_by_role("radio", name="each").wait_for()
        return new

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def test_samples_are_drawn_with_the_keyboard_alone(opened, server):
    new = opened()
    new.get_by_role("radio", name="each").focus()
    new.keyboard.press("ArrowRight")
    assert new.get_by_role("radio", name="0").is_checked()
    new.get_by_role("textbox", name="Seed").fill("18446744073709551615")
    new.get_by_role("slider", name="Samples").focus()
    new.keyboard.press("Home")
    new.keyboard.press("ArrowRight")
    new.get_by_role("button", name="Draw").focus()
    new.keyboard.press("Enter")
    new.get_by_text(re.compile(r"2 samples in \d")).wait_for()
    job = server.workers.jobs[-1]
    assert [s.seed for s in job.samples] == [(1 << 64) - 1] * 2 and [int(s.cond["label"]) for s in job.samples] == [0, 0]
    assert job.previews == 3
    picture = new.get_by_role("button", name="Sample 2, class 0").first
    picture.focus()
    new.keyboard.press("Enter")
    dialog = new.get_by_role("dialog", name="Sample")
    assert "18446744073709551615" in dialog.inner_text()
    new.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert new.locator("#gallery li").count() == 2
    assert new.locator("#latency .bar").count() == 1


def test_an_earlier_sample_gives_its_settings_back(opened):
    new = opened()
    new.get_by_role("radio", name="7").check()
    new.get_by_role("combobox", name="Solver").select_option("unipc")
    new.get_by_role("button", name="Draw").click()
    new.locator("#draw:enabled").wait_for()
    new.get_by_role("radio", name="none").check()
    new.get_by_role("combobox", name="Solver").select_option("ddim")
    new.locator("#gallery button").first.click()
    new.get_by_role("button", name="Use these settings").click()
    assert new.get_by_role("radio", name="7").is_checked()
    assert new.get_by_role("combobox", name="Solver").input_value() == "unipc"
    assert new.get_by_role("textbox", name="Seed").input_value().isdigit()


def test_a_drawing_is_stopped_and_an_error_is_shown(browser):
    with serving(step_seconds=0.02) as server:
        context = browser.new_context()
        new = context.new_page()
        new.goto(server.url)
        new.get_by_role("radio", name="each").wait_for()
        new.get_by_role("button", name="Draw").click()
        until(lambda: server.workers.running == 1)
        new.get_by_role("button", name="Stop").click()
        new.get_by_text("Stopped.").wait_for()
        until(lambda: server.workers.running == 0)
        server.workers.draining = True
        new.get_by_role("button", name="Draw").click()
        new.get_by_role("alert").get_by_text("the server stops").wait_for()
        context.close()


@pytest.mark.parametrize("width", [1280, 390, 320])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_its_window(opened, width, scheme):
    new = opened(width, color_scheme=scheme)
    new.get_by_role("button", name="Draw").click()
    new.locator("#draw:enabled").wait_for()
    assert new.evaluate("document.documentElement.scrollWidth") <= width
    colour = new.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", colour))) > 384) == (scheme == "light")
    heights = new.evaluate("[...document.querySelectorAll('button, select, .chips label')].map(b => b.offsetHeight)")
    assert all(height == 0 or height >= 40 for height in heights)  # large enough for a finger, or hidden
