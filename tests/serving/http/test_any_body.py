"""Whatever a client sends, it gets an answer of its own fault or none: no status 5xx, and JSON that can be read."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffuse_fast.serving.http.bodies import GenerationBody
from diffuse_fast.serving.http.sdapi import Txt2ImgBody

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
NAMES = st.text(max_size=8)
ANYTHING = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4))
# Values that a field could have, so that not everything ends at the first check.
LIKELY = st.sampled_from(
    [
        0,
        1,
        2,
        7,
        -1,
        0.5,
        1e300,
        1 << 53,
        1 << 64,
        True,
        "",
        "7",
        "digits",
        "8x8",
        "ddim",
        [1],
        [1, 2],
        [[1]],
        {"label": 3},
        {"label": [1, 2]},
    ]
)


def bodies(names: list[str]) -> st.SearchStrategy:
    fields = st.dictionaries(st.sampled_from(names), LIKELY | ANYTHING, max_size=6)
    return fields | ANYTHING


TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["seed", "index", "label", "x"]) | ANYTHING,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | ANYTHING,
        "datatype": st.sampled_from(["INT64", "UINT64", "FP32", "BOOL", "BYTES"]) | ANYTHING,
        "data": st.lists(st.integers(-1, 11) | st.floats(), max_size=3) | ANYTHING,
        "parameters": st.dictionaries(st.sampled_from(["binary_data_size", "x"]), st.integers(-1, 9), max_size=2) | ANYTHING,
    },
)
INFER = st.fixed_dictionaries(
    {"inputs": st.lists(TENSOR, max_size=3) | ANYTHING},
    optional={
        "parameters": bodies(
            ["n", "seed", "steps", "solver", "guidance_scale", "timeout", "deadline", "binary_data_output", "eta"]
        ),
        "outputs": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["sample", "seed", "x"])}), max_size=2) | ANYTHING,
        "id": ANYTHING,
    },
)
ROUTES = {
    "/v1/images/generations": bodies(list(GenerationBody.model_fields)),
    "/v1/jobs": bodies(list(GenerationBody.model_fields)),
    "/sdapi/v1/txt2img": bodies(list(Txt2ImgBody.model_fields)),
    "/v2/models/digits/infer": INFER,
}


@pytest.mark.parametrize("route", ROUTES)
def test_no_body_breaks_the_server(server, route):
    with server.client() as client:

        @settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
        @given(body=ROUTES[route])
        def check(body):
            answer = client.post(route, content=json.dumps(body), headers={"content-type": "application/json"})
            # 504: the body had a deadline. 429: jobs that still run fill the queue.
            assert answer.status_code in (200, 202, 400, 404, 422, 429, 504), answer.text
            if answer.status_code == 504:
                assert "deadline" in body or "deadline" in body["parameters"] or "timeout" in body["parameters"]
            if answer.status_code != 200:
                assert answer.json()

        check()


@pytest.mark.parametrize("route", ROUTES)
@given(content=st.binary(max_size=60))
@settings(max_examples=5)
def test_no_bytes_break_the_server(server, route, content):
    with server.client() as client:
        for headers in ({"content-type": "application/json"}, {"inference-header-content-length": "10"}, {}):
            assert client.post(route, content=content, headers=headers).status_code in (200, 202, 400, 422)
