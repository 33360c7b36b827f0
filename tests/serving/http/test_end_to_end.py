"""The command ``diffuse-fast serve`` with its worker processes, asked by the clients that people use."""

from __future__ import annotations

import base64
import io
import json
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

import diffuse_fast as df
from diffuse_fast.plans.plan import Plan
from tests.serving.http.servers import until

pytest.importorskip("typer")

ROOT = Path(__file__).parents[3]


def started(*arguments: str, **options) -> subprocess.Popen:
    command = [sys.executable, "-W", "error", "-m", "diffuse_fast", "serve", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture(scope="module")
def url():
    process = started("digits", "--port", "0", "--capacity", "4", "--threads", "1", "--drain", "20")
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"Serving digits on (http://127\.0\.0\.1:\d+)\n", line)
        assert found, line + process.stderr.read()
        assert "curl http://127.0.0.1" in process.stdout.readline()
        yield found[1]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        lines = [json.loads(line) for line in errors.splitlines()]  # the log, and nothing else
        assert all(line["message"] == "request" and line["status"] != 500 for line in lines), errors
    finally:
        process.kill()
        process.communicate()


def pixels(b64: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(b64))))


def levels(x: np.ndarray) -> np.ndarray:
    return df.to_uint8(x, df.load("digits"))[:, 0]


def test_a_mix_of_requests_draws_what_each_draws_alone(url):
    openai = pytest.importorskip("openai")
    mix = [
        {"seed": i, "num_inference_steps": steps, "solver": solver, "guidance_scale": scale, "class_label": [i % 10, 3], "n": 2}
        for i, (steps, solver, scale) in enumerate(
            [(5, "ddim", 1.0), (20, "dpmpp_2m", 2.5), (7, "heun", 1.5), (12, "unipc", 1.0), (9, "ddpm", 3.0), (15, "euler", 1.25)]
        )
    ]
    with openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=60) as client, ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda body: client.images.generate(prompt="", extra_body=body), mix))
    for body, answer in zip(mix, answers, strict=True):
        alone = df.sample(
            "digits",
            2,
            body["num_inference_steps"],
            solver=body["solver"],
            seed=body["seed"],
            guidance_scale=body["guidance_scale"],
            cond={"label": body["class_label"]},
        )
        np.testing.assert_array_equal([pixels(image.b64_json) for image in answer.data], levels(alone))


def test_a_picture_says_how_to_draw_it_again(url):
    body = {"class_label": 4, "solver": "ddim", "options": {"eta": 0.5}, "num_inference_steps": 6, "guidance_scale": 1.5}
    answer = httpx.post(f"{url}/v1/images/generations", json=body, headers={"accept": "image/png"}, timeout=60)
    assert answer.headers["content-type"] == "image/png"
    picture = Image.open(io.BytesIO(answer.content))
    recipe = json.loads(picture.text["recipe"])
    assert recipe["sha256"] == df.load("digits").sha256 and recipe["made_by"]["network"]["runtime"] == "native"
    assert str(recipe["sample"]["seed"]) == answer.headers["x-seed"]
    again = df.sample(recipe["model"], 1, **recipe["sample"])
    np.testing.assert_array_equal(np.asarray(picture), levels(again)[0])
    assert Plan.from_json(recipe["plan"]) == df.load("digits").plan("ddim", 6, eta=0.5)


def test_tensors_have_the_bits_of_sample(url):
    http = pytest.importorskip("tritonclient.http")
    label, seed = http.InferInput("label", [2], "INT64"), http.InferInput("seed", [2], "UINT64")
    label.set_data_from_numpy(np.array([3, 7]))
    seed.set_data_from_numpy(np.array([11, 12], np.uint64))
    client = http.InferenceServerClient(url.removeprefix("http://"))
    try:
        answer = client.infer("digits", [label, seed], parameters={"steps": 8, "solver": "dpmpp_2m"})
    finally:
        client.close()
    x = answer.as_numpy("sample")
    np.testing.assert_array_equal(x, df.sample("digits", 2, 8, solver="dpmpp_2m", seed=[11, 12], cond={"label": [3, 7]}))


def test_partial_images_come_before_the_end(url):
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=60) as client:
        stream = client.images.generate(prompt="7", stream=True, partial_images=2, extra_body={"seed": 1, "num_inference_steps": 9})
        events = list(stream)
    assert [event.type.rpartition(".")[2] for event in events] == ["partial_image", "partial_image", "completed"]
    assert 0 < events[0].step < events[1].step < 9
    np.testing.assert_array_equal(pixels(events[2].b64_json), levels(df.sample("digits", 1, 9, seed=1, cond={"label": 7}))[0])


def test_a_client_that_leaves_frees_its_place(url):
    body = {"n": 4, "num_inference_steps": 1000}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/v1/images/generations", json=body, timeout=0.3)
    until(lambda: 'diffuse_fast_samples_running{model="digits"} 0.0' in httpx.get(f"{url}/metrics").text)
    assert httpx.post(f"{url}/v1/images/generations", json={"num_inference_steps": 2}, timeout=60).status_code == 200


def test_arguments_that_the_model_cannot_take_are_400(url):
    for body in (
        {"solver": "nonsense"},
        {"solver": "flow_euler"},
        {"options": {"eta": "much"}},
        {"options": {"etta": 0.5}},
        {"options": {"timestep_spacing": "odd"}},
        {"negative_conditioning": {"label": 3}},
        {"num_inference_steps": 1000, "options": {"timesteps": [1.0]}},
    ):
        answer = httpx.post(f"{url}/v1/images/generations", json={**body, "stream": True}, timeout=60)
        assert answer.status_code == 400 and answer.json()["error"]["message"], (body, answer.text)


def test_a_deadline_that_cannot_be_met_is_504(url):
    answer = httpx.post(f"{url}/v1/images/generations", json={"num_inference_steps": 1000, "deadline": 0.05}, timeout=60)
    assert answer.status_code == 504 and answer.json()["error"]["code"] == "deadline_exceeded"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["nothing.onnx"], 1, "nothing.onnx"),
        (["digits", "digits"], 2, "NAME=FILE"),
        (["a/b=digits"], 2, "does not fit a URL"),
        (["digits", "--keys", "missing"], 1, "cannot be read"),
        (["digits", "--queue", "10"], 2, "--max-samples is 64"),
        (["digits", "--port", "70000"], 2, "65535"),
    ],
)
def test_wrong_use_is_said(arguments, status, said):
    from typer.testing import CliRunner

    from diffuse_fast.cli.app import app

    done = CliRunner().invoke(app, ["serve", *arguments])
    assert done.exit_code == status and said in done.output.replace("\n", " "), done.output
