"""``POST /v1/images/generations``, by httpx and by OpenAI's client."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from diffuse_fast.model import to_uint8
from diffuse_fast.serving.http import Settings
from tests.serving.http.fake_workers import Info, drawn
from tests.serving.http.servers import serving, until

ROUTE = "/v1/images/generations"


def opened(b64: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(b64)))


def assert_is(picture: Image.Image, seed: int, index: int) -> None:
    np.testing.assert_array_equal(np.asarray(picture), to_uint8(drawn(seed, index, (1, 8, 8)))[0])


def events(response) -> list[tuple[str, dict]]:
    found = []
    for block in response.read().decode().split("\n\n"):
        lines = dict(line.partition(": ")[::2] for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def test_openais_client_draws(openai_client):
    answer = openai_client.images.generate(
        prompt="7", model="digits", n=3, size="8x8", extra_body={"seed": 5, "num_inference_steps": 4, "solver": "ddim"}
    )
    assert len(answer.data) == 3 and answer.size == "8x8" and answer.output_format == "png"
    for i, image in enumerate(answer.data):
        picture = opened(image.b64_json)
        assert_is(picture, 5, i)
        recipe = json.loads(picture.text["recipe"])
        assert recipe["sample"] == {
            "solver": "ddim", "steps": 4, "guidance_scale": 1.0, "seed": 5, "first_index": i, "cond": {"label": 7}
        }  # fmt: skip
        assert recipe["sha256"] == "0" * 64 and recipe.pop("plan") == answer.plan == "{}"
        assert image.seed == 5 and image.seed_index == i and image.recipe == recipe
    assert answer.model_sha256 == "0" * 64


def test_openais_client_streams(openai_client):
    stream = openai_client.images.generate(
        prompt="", model="digits", stream=True, partial_images=3, n=2, extra_body={"class_label": [1, 2], "seed": 9}
    )
    found = list(stream)
    for i in range(2):
        mine = [event for event in found if event.index == i]
        assert [event.type for event in mine] == ["image_generation.partial_image"] * 3 + ["image_generation.completed"]
        assert [event.partial_image_index for event in mine[:-1]] == [0, 1, 2]
        assert_is(opened(mine[-1].b64_json), 9, i)
        assert mine[-1].seed == 9 and mine[-1].usage.total_tokens == 0 and mine[-1].size == "8x8"


def test_openais_client_lists_models(openai_client):
    (model,) = openai_client.models.list().data
    assert model.id == "digits" and model.shape == [1, 8, 8] and model.conditioning[0]["classes"] == 10
    assert {"ddim", "unipc"} < set(model.solvers) and "flow_euler" not in model.solvers
    assert openai_client.models.retrieve("digits").id == "digits"


def test_openais_client_sees_statuses(openai_client):
    openai = pytest.importorskip("openai")
    with pytest.raises(openai.NotFoundError, match=r"no model 'digit'\. Did you mean 'digits'"):
        openai_client.images.generate(prompt="7", model="digit")
    with pytest.raises(openai.BadRequestError, match="no class of this model") as error:
        openai_client.images.generate(prompt="a cat", model="digits")
    assert error.value.param == "prompt" and error.value.code == "invalid_argument"


def test_a_fresh_seed_is_told(server):
    with server.client() as client:
        first, second = (client.post(ROUTE, json={}).json()["data"][0] for _ in range(2))
    assert first["seed"] != second["seed"] and 0 <= first["seed"] < 1 << 53
    assert_is(opened(first["b64_json"]), first["seed"], 0)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"response_format": "url"}, "returns 'b64_json'"),
        ({"size": "16x16"}, "draws 8x8"),
        ({"n": 65}, "at most 64"),
        ({"num_inference_steps": 1001}, "at most 1000"),
        ({"prompt": "7", "class_label": 7}, "both given"),
        ({"class_label": 10}, "class from 0 to 9"),
        ({"class_label": [1, 2], "n": 3}, "2 values for 3 samples"),
        ({"class_label": 1, "conditioning": {"label": 1}}, "same input"),
        ({"conditioning": {"lable": 1}}, "Did you mean 'label'"),
        ({"conditioning": {"label": 1.5}}, "finite numbers of type int64"),
        ({"conditioning": {"label": [[1]]}}, "has shape"),
        ({"conditioning": {"label": 11}}, "class from 0 to 9"),
        ({"conditioning": {"label": 1 << 70}}, "finite numbers"),
        ({"solver": "nonsense"}, "known: ddim"),
    ],
)
def test_wrong_arguments_are_400(server, body, said):
    with server.client() as client:
        for stream in (False, True):
            answer = client.post(ROUTE, json={**body, "stream": stream})
            assert answer.status_code == 400 and said in answer.json()["error"]["message"], answer.text
            assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "content",
    [
        '{"n": 0}', '{"n": "many"}', '{"guidance": 2}', '{"guidance_scale": NaN}', '{"seed": -1}', f'{{"seed": {1 << 64}}}',
        '{"partial_images": 4}', '{"deadline": 0}', "[]", "{", "[" * 5000, '{"options": {"eta": Infinity}}', '"\\ud800"',
        '{"\\ud800": 1}',
    ],
)  # fmt: skip
def test_wrong_bodies_are_422(server, content):
    with server.client() as client:
        answer = client.post(ROUTE, content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422) and answer.json()["error"]["message"], answer.text


def test_text_that_is_not_unicode_is_refused(server):
    with server.client() as client:
        answer = client.post(ROUTE, content='{"model": "\\ud800"}', headers={"content-type": "application/json"})
    assert answer.status_code in (404, 422), answer.text


def test_conditioning_for_each_sample_reaches_the_job(server):
    with server.client() as client:
        body = {
            "n": 2,
            "conditioning": {"label": [3, 4]},
            "negative_conditioning": {"label": 10},
            "options": {"eta": 0.5},
            "priority": 2,
        }
        assert client.post(ROUTE, json={**body, "guidance_scale": 1.5}).status_code == 200
    job = server.workers.jobs[-1]
    assert [int(s.cond["label"]) for s in job.samples] == [3, 4] and [int(s.negative_cond["label"]) for s in job.samples] == [
        10,
        10,
    ]
    assert (job.options, job.priority, job.guidance_scale, job.deadline) == ({"eta": 0.5}, 2, 1.5, None)


def test_a_sample_that_fails_fails_alone():
    with serving(failures={13: "non_finite", 14: "deadline", 15: "worker"}) as server, server.client() as client:
        for seed, status, code in ((13, 422, "non_finite"), (14, 504, "deadline_exceeded"), (15, 503, "worker_lost")):
            answer = client.post(ROUTE, json={"seed": seed, "num_inference_steps": 1})
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert answer.headers["retry-after"] == "2"
        with client.stream("POST", ROUTE, json={"seed": 13, "num_inference_steps": 1, "stream": True}) as response:
            assert response.status_code == 200
            ((name, data),) = events(response)
        assert name == "error" and data["error"]["code"] == "non_finite"


def test_other_samples_are_an_error_where_the_model_draws_no_images():
    with serving(models={"points": Info("points", (2,))}) as server, server.client() as client:
        answer = client.post(ROUTE, json={})
        assert answer.status_code == 400 and "/v2/models/points/infer" in answer.json()["error"]["message"]


def test_work_is_limited():
    with serving(Settings(max_work=64 * 100, max_body=1000)) as server, server.client() as client:
        assert client.post(ROUTE, json={"n": 5, "num_inference_steps": 20}).status_code == 200
        assert client.post(ROUTE, json={"n": 6, "num_inference_steps": 20}).status_code == 400
        for content in (b" " * 1001, iter([b" " * 600, b" " * 600])):
            answer = client.post(ROUTE, content=content, headers={"content-type": "application/json"})
            assert answer.status_code == 413, answer.text
        assert client.post(ROUTE, json={}).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_cancels_its_request(stream):
    with serving(step_seconds=0.005) as server:
        with server.client() as client, pytest.raises(Exception, match="timed out"):
            client.post(ROUTE, json={"num_inference_steps": 1000, "stream": stream}, timeout=0.3)
        until(lambda: server.workers.running == 0)
        assert 0 < server.workers.ticks < 900
        until(lambda: server.metric('diffuse_fast_requests_total{model="digits",outcome="cancelled"}') == 1)


def test_a_full_queue_is_429_before_a_stream_starts():
    with serving(capacity=1, queue=1, step_seconds=0.002) as server, server.client() as client:
        job = {"num_inference_steps": 1000}
        ids = [client.post("/v1/jobs", json=job).json()["id"]]
        until(lambda: server.workers.running == 1)
        ids.append(client.post("/v1/jobs", json=job).json()["id"])
        for stream in (False, True):
            answer = client.post(ROUTE, json={"stream": stream})
            assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["code"] == "queue_full"
        for number in ids:
            assert client.delete(f"/v1/jobs/{number}").status_code == 204
        until(lambda: server.workers.running == 0)
        assert client.post(ROUTE, json={"num_inference_steps": 1}).status_code == 200
        assert server.metric('diffuse_fast_rejections_total{reason="queue_full"}') == 2


def test_a_server_that_stops_is_503():
    with serving(draining=True, ready=False) as server, server.client() as client:
        answer = client.post(ROUTE, json={"stream": True})
        assert answer.status_code == 503 and "retry-after" in answer.headers
        assert client.get("/health").status_code == 503
