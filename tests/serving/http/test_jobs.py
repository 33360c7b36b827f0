"""Jobs, and requests with an ``Idempotency-Key``."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from diffuse_fast.serving.http import Settings
from diffuse_fast.serving.http.metrics import Metrics
from diffuse_fast.serving.http.runs import Run, Shelf
from diffuse_fast.serving.job import Job, Sample
from tests.serving.http.fake_workers import FakeWorkers
from tests.serving.http.servers import serving, until

ROUTE = "/v1/images/generations"


def ended(client, job: str) -> dict:
    until(lambda: client.get(f"/v1/jobs/{job}").json()["status"] not in ("queued", "running"))
    return client.get(f"/v1/jobs/{job}").json()


def test_a_job_outlives_its_connection(server):
    with server.client() as client:
        answer = client.post("/v1/jobs", json={"n": 2, "seed": 3, "num_inference_steps": 4})
        assert answer.status_code == 202 and answer.json()["status"] in ("queued", "running")
        where = answer.headers["location"]
        assert where == f"/v1/jobs/{answer.json()['id']}"
    with server.client() as client:
        done = ended(client, answer.json()["id"])
        assert done["status"] == "completed" and done["finished"] == 2
        assert [image["seed_index"] for image in done["result"]["data"]] == [0, 1]
        assert done["id"] in [job["id"] for job in client.get("/v1/jobs").json()["data"]]
        assert client.delete(where).status_code == 204
        assert client.get(where).status_code == 404 and client.delete(where).status_code == 404


def test_progress_is_told_from_the_beginning(server):
    with server.client() as client:
        job = client.post("/v1/jobs", json={"n": 2, "partial_images": 2, "num_inference_steps": 6}).json()["id"]
        ended(client, job)
        for _ in range(2):
            answer = client.get(f"/v1/jobs/{job}/events")
            assert answer.headers["content-type"].startswith("text/event-stream")
            names = [line[7:] for line in answer.text.splitlines() if line.startswith("event: ")]
            assert names == ["admitted"] * 2 + ["preview"] * 4 + ["finished"] * 2 + ["done"]
        last = json.loads(answer.text.strip().splitlines()[-2 if answer.text.strip().splitlines()[-1].startswith("id") else -1][6:])
        assert last["status"] == "completed"
        unknown = client.get("/v1/jobs/none/events")
        assert unknown.status_code == 404 and unknown.headers["content-type"] == "application/json"


def test_a_job_is_cancelled():
    with serving(step_seconds=0.005) as server, server.client() as client:
        job = client.post("/v1/jobs", json={"num_inference_steps": 1000}).json()["id"]
        until(lambda: server.workers.running == 1)
        assert client.post(f"/v1/jobs/{job}/cancel").json()["status"] == "cancelled"
        until(lambda: server.workers.running == 0)
        assert client.get(f"/v1/jobs/{job}").json()["status"] == "cancelled"
        assert client.post(f"/v1/jobs/{job}/cancel").json()["status"] == "cancelled"
        assert client.get(f"/v1/jobs/{job}/events").text.count("event: done") == 1


def test_a_job_that_fails_says_why():
    with serving(failures={13: "non_finite"}) as server, server.client() as client:
        done = ended(client, client.post("/v1/jobs", json={"seed": 13}).json()["id"])
        assert done["status"] == "failed" and done["error"]["code"] == "non_finite"
        assert client.post("/v1/jobs", json={"n": 0}).status_code == 422


def test_finished_jobs_are_kept_within_a_number_of_bytes():
    with serving(Settings(keep_bytes=40_000)) as server, server.client() as client:  # a job of one sample takes 4352 bytes
        jobs = []
        for _ in range(8):
            jobs.append(client.post("/v1/jobs", json={"num_inference_steps": 1}).json()["id"])
            until(lambda: server.workers.running == 0)
            assert ended(client, jobs[-1])["status"] == "completed"
        kept = [client.get(f"/v1/jobs/{job}").status_code for job in jobs]
        assert kept == [404] * 4 + [200] * 4


def test_the_same_request_again_joins_the_first():
    with serving(step_seconds=0.003) as server, server.client() as client:
        headers = {"idempotency-key": "one"}
        answers = []
        body = {"num_inference_steps": 100}
        threads = [
            threading.Thread(target=lambda: answers.append(client.post(ROUTE, json=body, headers=headers))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        answers.append(client.post(ROUTE, json=body, headers=headers))
        assert len(server.workers.jobs) == 1 and len({answer.content for answer in answers}) == 1
        other = client.post(ROUTE, json={"num_inference_steps": 101}, headers=headers)
        assert other.status_code == 422 and other.json()["error"]["code"] == "idempotency_key_reused"
        assert client.post("/v1/jobs", json=body, headers=headers).status_code == 202  # another route, another request
        streamed = client.post(ROUTE, json={**body, "stream": True}, headers={"idempotency-key": "two"})
        again = client.post(ROUTE, json={**body, "stream": True}, headers={"idempotency-key": "two"})
        assert streamed.content == again.content and len(server.workers.jobs) == 3
        assert client.post(ROUTE, json=body, headers={"idempotency-key": "x" * 256}).status_code == 400


def test_a_failed_request_is_tried_anew():
    with serving(failures={13: "worker"}) as server, server.client() as client:
        headers = {"idempotency-key": "one"}
        assert client.post(ROUTE, json={"seed": 13}, headers=headers).status_code == 503
        del server.workers.failures[13]
        assert client.post(ROUTE, json={"seed": 13}, headers=headers).status_code == 200
        assert client.post(ROUTE, json={"seed": 13}, headers=headers).status_code == 200
        assert len(server.workers.jobs) == 2


@pytest.mark.parametrize(("linger", "runs_on"), [(30.0, True), (0.05, False)])
def test_with_a_key_a_request_outlives_its_client_for_a_while(linger, runs_on):
    with serving(Settings(linger=linger), step_seconds=0.002) as server:
        body, headers = {"num_inference_steps": 400}, {"idempotency-key": "one"}
        with server.client() as client, pytest.raises(Exception, match="timed out"):
            client.post(ROUTE, json=body, headers=headers, timeout=0.2)
        if not runs_on:
            until(lambda: server.workers.running == 0)
            assert server.workers.ticks < 390
        with server.client() as client:
            assert client.post(ROUTE, json=body, headers=headers).status_code == 200
        assert len(server.workers.jobs) == (1 if runs_on else 2)


def test_a_shelf_forgets_the_oldest_and_counts_what_it_holds():
    async def check() -> None:
        shelf, runs = Shelf(3600.0, 3 * (4096 + 256)), []
        workers = FakeWorkers(step_seconds=0)
        metrics = Metrics(workers)
        for i in range(5):
            job = Job(str(i), "digits", (Sample(i),), steps=1)
            runs.append(Run(workers.submit(job), 0.0, metrics))
            shelf.put((str(i),), runs[-1])
            assert shelf.get((str(i),)) is runs[-1]
            await runs[-1].finished()
        assert [key for (key,), _ in shelf.items()] == ["2", "3", "4"]
        shelf.put(("2",), runs[2])  # there already
        shelf.put(("4",), runs[0])  # in place of another
        shelf.remove(("3",))
        shelf.put(("5",), runs[1])
        assert [key for (key,), _ in shelf.items()] == ["2", "4", "5"]
        shelf.put(("6",), runs[3])
        assert [key for (key,), _ in shelf.items()] == ["4", "5", "6"]

    asyncio.run(check())


def test_a_shelf_forgets_with_time():
    async def check() -> None:
        workers = FakeWorkers(step_seconds=0)
        run = Run(workers.submit(Job("0", "digits", (Sample(0),), steps=1)), 0.0, Metrics(workers))
        shelf = Shelf(0.05, 1 << 20)
        shelf.put(("0",), run)
        await run.finished()
        await asyncio.sleep(0.1)
        assert shelf.get(("0",)) is None and shelf.items() == []

    asyncio.run(check())
