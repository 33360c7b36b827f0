"""The Open Inference Protocol, by Triton's client and by hand."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from tests.serving.http.fake_workers import drawn

MODEL = "/v2/models/digits"


@pytest.fixture
def triton(server):
    http = pytest.importorskip("tritonclient.http")
    client = http.InferenceServerClient(server.url.removeprefix("http://"))
    yield client, http
    client.close()


def test_tritons_client_draws(triton, server):
    client, http = triton
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("digits")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = client.get_model_metadata("digits")
    assert metadata["outputs"][0] == {"name": "sample", "datatype": "FP32", "shape": [-1, 1, 8, 8]}
    assert {"name": "label", "datatype": "INT64", "shape": [-1]} in metadata["inputs"]
    for binary in (True, False):
        seeds, labels = http.InferInput("seed", [2], "UINT64"), http.InferInput("label", [2], "INT64")
        seeds.set_data_from_numpy(np.array([5, 1 << 63], np.uint64), binary_data=binary)
        labels.set_data_from_numpy(np.array([3, 4]), binary_data=binary)
        for outputs in (None, [http.InferRequestedOutput("sample", binary_data=binary)]):
            parameters = {"steps": 4, "solver": "ddim", "guidance_scale": 1.5, "eta": 0.5}
            answer = client.infer("digits", [seeds, labels], outputs=outputs, request_id="mine", parameters=parameters)
            x = answer.as_numpy("sample")
            np.testing.assert_array_equal(x, [drawn(5, 0, (1, 8, 8)), drawn(1 << 63, 0, (1, 8, 8))])
            assert answer.get_response()["id"] == "mine"
            assert json.loads(answer.get_response()["parameters"]["recipe"])["sample"]["seed"] == 5
        if outputs is None:
            np.testing.assert_array_equal(answer.as_numpy("seed"), [5, 1 << 63])
        job = server.workers.jobs[-1]
        assert (job.steps, job.solver, job.guidance_scale, job.options) == (4, "ddim", 1.5, {"eta": 0.5})
        assert [int(s.cond["label"]) for s in job.samples] == [3, 4]


def test_tritons_client_sees_errors(triton):
    client, http = triton
    from tritonclient.utils import InferenceServerException

    assert not client.is_model_ready("digit")
    wrong = http.InferInput("lable", [1], "INT64")
    wrong.set_data_from_numpy(np.array([3]))
    with pytest.raises(InferenceServerException, match="Did you mean 'label'"):
        client.infer("digits", [wrong])


def test_without_inputs_a_seed_is_drawn(server):
    with server.client() as client:
        answer = client.post(f"{MODEL}/infer", content=json.dumps({"parameters": {"n": 2, "seed": 7}, "inputs": []})).json()
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert outputs["seed"]["data"] == [7, 7] and outputs["index"]["data"] == [0, 1] and outputs["sample"]["shape"] == [2, 1, 8, 8]
    np.testing.assert_array_equal(np.float32(outputs["sample"]["data"]).reshape(2, 64)[1], drawn(7, 1, (64,)))


SEED = {"name": "seed", "shape": [1], "datatype": "UINT64"}


@pytest.mark.parametrize(
    "body",
    [
        "[]",
        "{",
        '{"inputs": [{"name": "seed", "shape": [1], "datatype": "UINT64", "data": [NaN]}]}',
        {"inputs": [{**SEED, "data": [-1]}]},
        {"inputs": [{**SEED, "data": [1, 2]}]},
        {"inputs": [{**SEED, "data": ["a"]}]},
        {"inputs": [{**SEED, "data": [[[1], [2, 3]]]}]},
        {"inputs": [{**SEED, "shape": [-1], "data": [1]}]},
        {"inputs": [{**SEED, "shape": [], "data": [1]}]},
        {"inputs": [{**SEED, "datatype": "BYTES", "data": ["a"]}]},
        {"inputs": [{**SEED, "datatype": "FP32", "data": [1.0]}]},
        {"inputs": [{**SEED, "data": [1]}, {**SEED, "data": [1]}]},
        {"inputs": [{**SEED, "parameters": {"binary_data_size": 8}}]},
        {"inputs": [{**SEED, "parameters": {"binary_data_size": -8}}]},
        {"inputs": [{**SEED, "data": [1]}], "parameters": {"n": 2}},
        {"inputs": [{"name": "label", "shape": [1], "datatype": "INT64", "data": [11]}]},
        {"inputs": [], "outputs": [{"name": "x0"}]},
        {"inputs": [], "parameters": {"n": "two"}},
        {"inputs": [], "parameters": {"n": 1000}},
        {"inputs": [], "parameters": {"timeout": "soon"}},
        {"inputs": [], "parameters": {"steps": 0}},
    ],
)
def test_wrong_tensors_are_400(server, body):
    with server.client() as client:
        answer = client.post(f"{MODEL}/infer", content=body if isinstance(body, str) else json.dumps(body))
    assert answer.status_code == 400 and isinstance(answer.json()["error"], str), answer.text


def test_wrong_headers_are_400(server):
    head = json.dumps({"inputs": [{**SEED, "parameters": {"binary_data_size": 8}}]}).encode()
    tail = struct.pack("<Q", 5)
    with server.client() as client:
        for content, header, status in (
            (head + tail, str(len(head)), 200),
            (head + tail + b"x", str(len(head)), 400),
            (head + tail[:-1], str(len(head)), 400),
            (head + tail, "-1", 400),
            (head + tail, str(len(head) + 9), 400),
            (head + tail, "many", 400),
        ):
            answer = client.post(f"{MODEL}/infer", content=content, headers={"Inference-Header-Content-Length": header})
            assert answer.status_code == status, answer.text


def test_webui_clients_draw(server):
    with server.client() as client:
        body = {
            "prompt": "7",
            "steps": 4,
            "sampler_name": "DPM++ 2M Karras",
            "batch_size": 2,
            "seed": 5,
            "width": 512,
            "cfg_scale": 2,
        }
        answer = client.post("/sdapi/v1/txt2img", json=body)
        assert answer.status_code == 200 and len(answer.json()["images"]) == 2
        assert json.loads(answer.json()["info"])["all_seeds"] == [5, 5]
        job = server.workers.jobs[-1]
        assert (job.solver, job.options, job.steps, job.guidance_scale) == ("dpmpp_2m", {"timestep_spacing": "karras"}, 4, 2.0)
        assert client.post("/sdapi/v1/txt2img", json={"negative_prompt": "blurry"}).status_code == 400
        assert client.post("/sdapi/v1/txt2img", json={"batch_size": 1 << 20, "n_iter": 1 << 20}).status_code == 400
