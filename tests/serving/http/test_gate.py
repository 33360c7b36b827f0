"""What every request passes: request ids, keys, rates, the log; and the routes of operation."""

from __future__ import annotations

import base64
import json
import logging
import socket
from typing import ClassVar

import pytest

from diffuse_fast.errors import ArgumentError
from diffuse_fast.serving.http import Settings
from diffuse_fast.serving.http.keys import find, read_keys
from diffuse_fast.serving.http.log import JsonLines
from diffuse_fast.serving.http.rates import Rates
from tests.serving.http.servers import serving

ROUTE = "/v1/images/generations"
SECRET = "a-key-of-the-first-client"


def test_request_ids_are_echoed(server):
    with server.client() as client:
        assert client.get("/health", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
        for given in ("", "a b", "x" * 200, 'a"'):
            assert len(client.get("/nothing", headers={"x-request-id": given}).headers["x-request-id"]) == 32


def test_unknown_routes_and_methods(server):
    with server.client() as client:
        for method, path, status in (
            ("GET", "/nothing", 404),
            ("GET", ROUTE, 405),
            ("GET", "/v2/nothing", 404),
            ("GET", "/docs", 404),
        ):
            answer = client.request(method, path)
            assert answer.status_code == status
            error = answer.json()["error"]
            assert isinstance(error, str) if path.startswith("/v2") else error["message"]


def test_the_openapi_document_has_both_answers(server):
    with server.client() as client:
        document = client.get("/openapi.json").json()
    answers = document["paths"][ROUTE]["post"]["responses"]
    assert set(answers["200"]["content"]) == {"application/json", "text/event-stream", "image/png"}
    assert {"400", "401", "404", "413", "422", "429", "503", "504"} <= set(answers)
    assert "/v1/jobs/{job}/events" in document["paths"] and "/v2/models/{model}/infer" in document["paths"]


def test_keys_guard_every_route_but_health():
    keys = read_keys(None, {"DIFFUSE_FAST_API_KEYS": f"first:{SECRET},another-key-of-this-test"})
    with serving(Settings(keys=keys)) as server, server.client() as client:
        for path in ("/", "/metrics", "/v1/models", "/openapi.json", "/v2/models/digits", "/v1/jobs", "/page/app.js"):
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": SECRET}, {"authorization": "Basic !"}):
                answer = client.get(path, headers=headers)
                assert answer.status_code == 401 and "Basic" in answer.headers["www-authenticate"], path
        for path in ("/health", "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 200
        assert client.post(ROUTE, json={}).status_code == 401
        basic = base64.b64encode(f"anyone:{SECRET}".encode()).decode()
        for authorization in (f"Bearer {SECRET}", f"Basic {basic}", "bearer another-key-of-this-test"):
            assert client.post(ROUTE, json={}, headers={"authorization": authorization}).status_code == 200


def test_jobs_belong_to_a_key():
    keys = read_keys(None, {"DIFFUSE_FAST_API_KEYS": f"one:{SECRET},two:another-key-of-this-test"})
    with serving(Settings(keys=keys)) as server, server.client() as client:
        one, two = ({"authorization": f"Bearer {key}"} for key in (SECRET, "another-key-of-this-test"))
        job = client.post("/v1/jobs", json={}, headers=one).json()["id"]
        assert client.get(f"/v1/jobs/{job}", headers=one).status_code == 200
        assert client.get(f"/v1/jobs/{job}", headers=two).status_code == 404
        assert client.get(f"/v1/jobs/{job}/events", headers=two).status_code == 404
        assert client.get("/v1/jobs", headers=two).json()["data"] == []


def test_keys_are_read(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# ours\n\nfirst:{SECRET}\n  another-key-of-this-test  \n")
    first, second = read_keys(path, {})
    assert first.name == "first" and len(second.name) == 8
    assert find((first, second), f"Bearer {SECRET}") == first
    assert find((first, second), None) is None and find((first, second), "Bearer") is None
    path.write_text("short\n")
    with pytest.raises(ArgumentError, match="5 characters"):
        read_keys(path, {})
    path.write_text("# none\n")
    with pytest.raises(ArgumentError, match="has no key"):
        read_keys(path, {})
    with pytest.raises(ArgumentError, match="cannot be read"):
        read_keys(tmp_path / "missing", {})


def test_rates():
    now = [0.0]
    rates = Rates(2.0, lambda: now[0])
    assert [rates.wait("a") for _ in range(20)] == [0.0] * 20  # ten seconds' worth
    assert rates.wait("a") == 0.5 and rates.wait("b") == 0.0
    now[0] = 0.5
    assert rates.wait("a") == 0.0 and rates.wait("a") == 0.5
    assert Rates(None).wait("a") == 0.0


def test_a_key_that_asks_too_often_is_429():
    with serving(Settings(rate=0.1)) as server, server.client() as client:
        assert client.post(ROUTE, json={}).status_code == 200
        answer = client.post(ROUTE, json={})
        assert answer.status_code == 429 and answer.json()["error"]["type"] == "rate_limit_error"
        assert 5 < int(answer.headers["retry-after"]) <= 10
        assert client.get("/v1/models").status_code == 200


def test_pages_of_other_sites_may_not_draw(server):
    with server.client() as client:
        for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
            assert client.post(ROUTE, json={}, headers={"sec-fetch-site": site}).status_code == status
        assert client.post(ROUTE, content=b"x", headers={"content-encoding": "gzip"}).status_code == 415


def test_health_and_metrics(server):
    with server.client() as client:
        client.post(ROUTE, json={"n": 2}).raise_for_status()
        assert client.get("/health").json() == {"status": "ready"}
        text = client.get("/metrics").text
    for name in ("requests_total", "queue_wait_seconds_bucket", "request_seconds_sum", "images_total", "samples_waiting",
                 "samples_running",
                 "batch_occupancy", "step_seconds", "steps_total", "worker_restarts_total", "ready"):  # fmt: skip
        assert f"diffuse_fast_{name}" in text, name
    assert server.metric('diffuse_fast_requests_total{model="digits",outcome="completed"}') >= 1


def test_refused_requests_are_counted_once_by_reason():
    with serving(failures={13: "non_finite"}) as server, server.client() as client:
        for body in ({"n": 0}, {"size": "1x1"}, {"model": "other"}, {"solver": "nonsense"}, {"seed": 13}):
            assert 400 <= client.post(ROUTE, json=body).status_code < 500
        for code, count in (
            ("invalid_body", 1),
            ("invalid_size", 1),
            ("model_not_found", 1),
            ("invalid_argument", 1),
            ("non_finite", 0),
        ):
            assert server.metric(f'diffuse_fast_rejections_total{{reason="{code}"}}') == count, code
        assert server.metric('diffuse_fast_requests_total{model="digits",outcome="non_finite"}') == 1


def test_the_log_has_a_line_per_request_and_no_bodies():
    lines: list[dict] = []

    class Keep(logging.Handler):
        def emit(self, record):
            lines.append(json.loads(self.format(record)))

    handler, log = Keep(), logging.getLogger("diffuse_fast.serving")
    handler.setFormatter(JsonLines())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        with serving() as server, server.client() as client:
            client.post(ROUTE, json={"n": 2, "num_inference_steps": 3, "solver": "ddim"}, headers={"x-request-id": "one"})
            client.post(ROUTE, json={"prompt": "nothing of it is logged"}, headers={"x-request-id": "two"})
            client.get("/health")
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
    one, two = lines
    assert (
        one["request_id"] == "one" and one["status"] == 200 and one["route"] == ROUTE and one["samples"] == 2 and one["steps"] == 3
    )
    assert two["request_id"] == "two" and two["status"] == 400 and two["refused"] == "invalid_argument" and 0 < two["seconds"] < 10
    assert "nothing of it" not in json.dumps(lines)


def test_a_span_says_what_was_drawn(server, monkeypatch):
    from opentelemetry import trace

    class Span(trace.NonRecordingSpan):
        told: ClassVar[dict] = {}

        def set_attribute(self, key, value):
            self.told[key] = value

    monkeypatch.setattr(trace, "get_current_span", lambda: Span(trace.INVALID_SPAN_CONTEXT))
    with server.client() as client:
        client.post(ROUTE, json={"n": 2, "num_inference_steps": 3})
    assert {"diffuse_fast.model": "digits", "diffuse_fast.samples": 2, "diffuse_fast.steps": 3}.items() <= Span.told.items()


def test_a_body_that_does_not_come_is_408():
    head = b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    with serving(Settings(body_seconds=0.2)) as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(head)
            answer = b""
            while part := connection.recv(4096):  # until the server closes the connection
                answer += part
        assert answer.startswith(b"HTTP/1.1 408") and b"body_timeout" in answer
        with server.client() as client:  # what comes after the body has no limit
            assert client.post(ROUTE, json={"num_inference_steps": 400}).status_code == 200


def test_an_unexpected_error_tells_no_internals(monkeypatch, caplog):
    with serving() as server, server.client() as client:
        monkeypatch.setattr(server.workers, "submit", lambda job: 1 / 0)
        answer = client.post(ROUTE, json={}, headers={"x-request-id": "broken"})
        assert answer.status_code == 500 and answer.headers["x-request-id"] == "broken"
        assert "zero" not in answer.text and "X-Request-Id" in answer.json()["error"]["message"]
    assert "ZeroDivisionError" in caplog.text and "broken" in caplog.text
