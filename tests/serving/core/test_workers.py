"""Real worker processes."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, DrainingError, QueueFullError, StartError, UnknownModelError
from diffuse_fast.serving.job import Admitted, Cancelled, Failed, Finished, Job, Preview, Sample
from diffuse_fast.serving.workers import Workers

MIX = (("ddim", 5, 1.0), ("ddpm", 12, 2.0), ("dpmpp_2m", 10, 1.5), ("heun", 4, 1.0), ("unipc", 8, 3.0), ("dpmpp_2m_sde", 9, 1.0))
PATIENCE = 240.0  # seconds that a test waits for what must come; the machine may be busy


def job(name, seed=0, label=0, n=1, **more):
    return Job(name, "digits", tuple(Sample(seed, i, {"label": label}) for i in range(n)), **{"steps": 5, **more})


def serve(scenario, models=None, **options):
    """Run ``await scenario(workers)`` with workers that are ready."""

    async def main():
        workers = Workers(models or {"digits": "digits"}, threads=1, warm_timeout=PATIENCE, **options)
        await workers.start()
        try:
            async with asyncio.timeout(PATIENCE):
                return await scenario(workers)
        finally:
            await workers.stop(drain=0.0)

    return asyncio.run(main())


async def events_of(ticket):
    return [event async for event in ticket]


def only(events, kind):
    return [event for event in events if isinstance(event, kind)]


def redrawn(record):
    """A sample drawn from its record alone."""
    model = df.load("digits")
    assert record["model_sha256"] == model.sha256
    sampler = df.Sampler(model, df.Plan.from_json(record["plan"]), guidance_scale=record["guidance_scale"])
    cond = {name: [value] for name, value in record["cond"].items()}
    return sampler.sample(1, seed=record["seed"], first_index=record["index"], cond=cond)[0]


def test_a_mixed_batch_has_the_bits_of_df_sample_and_records_how():
    async def scenario(workers):
        jobs = [
            job(f"{i}", seed=i, label=i % 10, n=2, solver=solver, steps=steps, guidance_scale=guidance)
            for i, (solver, steps, guidance) in enumerate(MIX * 2)
        ]
        return jobs, await asyncio.gather(*(events_of(workers.submit(one)) for one in jobs)), workers.snapshot()

    jobs, all_events, snapshot = serve(scenario, capacity=7)
    for one, events in zip(jobs, all_events, strict=True):
        finished = sorted(only(events, Finished), key=lambda event: event.sample)
        options = {"solver": one.solver, "guidance_scale": one.guidance_scale}
        alone = df.sample("digits", 2, one.steps, seed=one.samples[0].seed, cond=dict(one.samples[0].cond), **options)
        assert np.array([event.x for event in finished]).tobytes() == alone.tobytes()
        assert [event.sample for event in only(events, Admitted)] == [0, 1]
        json.dumps(finished[0].record)
    for events in all_events[: len(MIX)]:
        finished = only(events, Finished)[-1]
        assert redrawn(finished.record).tobytes() == finished.x.tobytes()
    state = snapshot.models["digits"]
    assert (state.waiting, state.running, state.occupancy, state.restarts) == (0, 0, 0.0, 0)
    assert state.ticks > 0 and state.seconds_per_tick > 0


def test_previews_come_evenly_and_are_states_of_the_run():
    async def scenario(workers):
        return await events_of(workers.submit(job("a", seed=3, label=1, steps=8, previews=3)))

    events = serve(scenario)
    previews = only(events, Preview)
    assert [(p.number, p.step, p.steps) for p in previews] == [(0, 2, 8), (1, 4, 8), (2, 6, 8)]
    states = []
    df.sample("digits", 1, 8, seed=3, cond={"label": 1}, callback=lambda row, x: states.append(x.copy()))
    for preview in previews:
        assert preview.x.tobytes() == states[preview.step - 1][0].tobytes()


def test_what_does_not_fit_is_refused_before_it_is_queued():
    async def scenario(workers):
        refused = {
            UnknownModelError: [Job("a", "letters", (Sample(0),))],
            ArgumentError: [
                job("a", solver="dimm"),
                job("a", label=11),
                job("a", n=0),
                job("a", n=65),
                job("a", options={"timestep_spacing": "odd"}),
                job("a", guidance_scale=float("nan")),
                Job("a", "digits", (Sample(0, 0, {"class": 1}),)),
                Job("a", "digits", (Sample(0, 0, {"label": 1}, {"label": 2}),)),
            ],
        }
        for kind, jobs in refused.items():
            for one in jobs:
                with pytest.raises(kind):
                    workers.submit(one)
        assert workers.snapshot().models["digits"].waiting == 0
        return len(only(await events_of(workers.submit(job("a"))), Finished))

    assert serve(scenario) == 1


def test_a_full_queue_says_when_to_come_again():
    async def scenario(workers):
        tickets = [workers.submit(job(f"{i}", steps=100, n=2)) for i in range(3)]
        with pytest.raises(QueueFullError, match="'digits' has 6 samples") as raised:
            workers.submit(job("one too many"))
        assert raised.value.retry_after > 0
        with pytest.raises(ArgumentError, match="already"):
            workers.submit(job("0"))
        for ticket in tickets:
            ticket.cancel()
        assert workers.snapshot().models["digits"].waiting == 0
        await events_of(workers.submit(job("now")))

    serve(scenario, capacity=2, queue=4)


def test_a_cancelled_job_leaves_and_the_others_go_on():
    async def scenario(workers):
        long = workers.submit(job("long", steps=1000, n=2))
        async for event in long:
            if isinstance(event, Admitted):
                break
        short = workers.submit(job("short", seed=5))
        long.cancel()
        long.cancel()
        rest = await events_of(long)
        assert isinstance(rest[-1], Cancelled) and not only(rest, Finished)
        return await events_of(short)

    events = serve(scenario, capacity=2)
    expected = df.sample("digits", 1, 5, seed=5, cond={"label": 0})[0]
    assert only(events, Finished)[0].x.tobytes() == expected.tobytes()


def test_a_deadline_ends_what_cannot_be_met():
    async def scenario(workers):
        late = workers.submit(job("late", steps=1000, n=2, deadline=time.monotonic() + 0.1))
        return await events_of(late), await events_of(workers.submit(job("after")))

    late, after = serve(scenario, capacity=1)
    assert sorted((event.sample, event.kind) for event in only(late, Failed)) == [(0, "deadline"), (1, "deadline")]
    assert only(after, Finished)


@pytest.fixture
def overflowing(tmp_path, document):
    """A model whose output is not finite for label 3."""
    onnx = pytest.importorskip("onnx")
    from tests.conftest import small_proto

    proto = small_proto(document)
    proto.graph.node[-1].output[0] = "sum"
    proto.graph.node.append(onnx.helper.make_node("Mul", ["sum", "large"], ["product"]))
    proto.graph.node.append(onnx.helper.make_node("Mul", ["product", "large"], ["output"]))
    table = np.ones((5, 2, 3), np.float32) * 1e-30
    table[3] = 1e10
    del proto.graph.initializer[0]
    proto.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1e15), "large"))
    path = tmp_path / "overflowing.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_a_sample_that_is_not_finite_fails_alone(overflowing):
    async def scenario(workers):
        samples = tuple(Sample(seed=label, cond={"label": label}) for label in (0, 3, 1))
        bad = workers.submit(Job("bad", "small", samples, steps=6, solver="ddim"))
        return await events_of(bad)

    events = serve(scenario, {"small": overflowing}, capacity=3)
    assert [(event.sample, event.kind) for event in only(events, Failed)] == [(1, "non_finite")]
    for event in only(events, Finished):
        label = (0, 3, 1)[event.sample]
        assert event.x.tobytes() == df.sample(overflowing, 1, 6, seed=label, cond={"label": label})[0].tobytes()
    assert len(only(events, Finished)) == 2


def pid_of(workers):
    return workers._supervisors["digits"]._process.pid


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_a_worker_that_dies_loses_nothing_and_repeats_nothing(kills):
    """Kills at random moments, with jobs arriving all the time; every sample comes once, with the right bits."""

    async def scenario(workers):
        chance = random.Random(1)
        tasks, stopping = [], False

        async def arrive():
            for number in range(10**6):
                if stopping:
                    return number
                one = job(f"{number}", seed=number, label=number % 10, n=2, steps=20, previews=2)
                tasks.append(asyncio.create_task(events_of(workers.submit(one))))
                await asyncio.sleep(0.02)
                while len(tasks) - sum(task.done() for task in tasks) > 12:
                    await asyncio.sleep(0.01)

        arriving = asyncio.create_task(arrive())
        for _ in range(kills):
            while not workers.ready:
                await asyncio.sleep(0.01)
            await asyncio.sleep(chance.uniform(0.0, 0.3))
            os.kill(pid_of(workers), signal.SIGKILL)
            while workers.ready:
                await asyncio.sleep(0.001)
        stopping = True
        number = await arriving
        return number, await asyncio.gather(*tasks), workers.snapshot().models["digits"]

    number, all_events, state = serve(scenario, capacity=4)
    assert state.restarts == kills and (state.waiting, state.running) == (0, 0)
    for seed, events in enumerate(all_events):
        kinds = [type(event).__name__ for event in events]
        assert sorted(event.sample for event in only(events, Finished)) == [0, 1], kinds
        assert sorted((p.sample, p.number) for p in only(events, Preview)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
        assert sorted(event.sample for event in only(events, Admitted)) == [0, 1]
        if seed % 7 == 0:
            expected = df.sample("digits", 2, 20, seed=seed, cond={"label": seed % 10})
            for event in only(events, Finished):
                assert event.x.tobytes() == expected[event.sample].tobytes()
    assert number == len(all_events)


def test_a_job_that_kills_its_worker_costs_the_others_little():
    """A job is killed whenever it is in the batch: it fails at last, and the others finish."""

    async def scenario(workers):
        poison = workers.submit(job("poison", steps=900))
        others = [asyncio.create_task(events_of(workers.submit(job(f"{i}", seed=i, steps=30)))) for i in range(6)]

        async def kill():
            while not poison.ended:
                if poison.admitted and workers.ready:
                    os.kill(pid_of(workers), signal.SIGKILL)
                    while workers.ready:
                        await asyncio.sleep(0.001)
                await asyncio.sleep(0.01)

        killing = asyncio.create_task(kill())
        events = await events_of(poison)
        await killing
        return events, await asyncio.gather(*others)

    events, others = serve(scenario, capacity=8)
    assert [event.kind for event in only(events, Failed)] == ["worker"]
    assert all(only(other, Finished) for other in others)


@pytest.mark.parametrize("count", [60, pytest.param(10_000, marks=pytest.mark.slow)])
def test_random_cancels_leave_nothing_behind(count):
    async def scenario(workers):
        chance = random.Random(2)

        async def client(number):
            ticket = workers.submit(job(f"{number}", seed=number, n=chance.choice((1, 2, 3)), steps=chance.choice((5, 30))))
            reader = asyncio.create_task(events_of(ticket))
            await asyncio.sleep(chance.uniform(0.0, 0.2))
            ticket.cancel()
            return await reader

        ended = []
        for first in range(0, count, 30):
            ended += await asyncio.gather(*(client(number) for number in range(first, min(count, first + 30))))
        last = await events_of(workers.submit(job("last", seed=9)))
        return ended, last, workers.snapshot().models["digits"]

    ended, last, state = serve(scenario, capacity=6, queue=200)
    assert (state.waiting, state.running, state.restarts) == (0, 0, 0)
    for events in ended:
        assert events and isinstance(events[-1], Cancelled | Finished)
    assert only(last, Finished)[0].x.tobytes() == df.sample("digits", 1, 5, seed=9, cond={"label": 0})[0].tobytes()


def test_draining_refuses_new_jobs_and_finishes_the_old():
    async def scenario(workers):
        running = asyncio.create_task(events_of(workers.submit(job("a", n=3, steps=20))))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(workers.stop(drain=PATIENCE))
        await asyncio.sleep(0)
        assert not workers.ready
        with pytest.raises(DrainingError):
            workers.submit(job("b"))
        await stopping
        return await running

    assert len(only(serve(scenario), Finished)) == 3


def test_a_worker_that_cannot_start_says_why(tmp_path):
    async def main():
        workers = Workers({"digits": "digits"}, runtime="nonsense", warm_timeout=PATIENCE)
        with pytest.raises(StartError, match="nonsense"):
            await workers.start()

    asyncio.run(main())


def test_the_front_process_needs_neither_torch_nor_a_runtime():
    import subprocess
    import sys

    code = (
        "import sys, diffuse_fast.serving.workers, diffuse_fast.serving.worker;"
        "print([name for name in ('torch', 'onnxruntime', 'openvino', 'fastapi') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_model_is_read_again_while_it_is_served(tmp_path, document):
    onnx = pytest.importorskip("onnx")
    from tests.conftest import small_proto

    path = tmp_path / "small.onnx"

    def write(entry):
        proto = small_proto(document)
        table = np.full((5, 2, 3), entry, np.float32)
        proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(table, "table"))
        part = tmp_path / "part"
        part.write_bytes(proto.SerializeToString())
        part.replace(path)

    def asked(name):
        return Job(name, "small", (Sample(1, 0, {"label": 0}),), "ddim", 50)

    write(0.1)
    first = df.sample(path, 1, 50, seed=1, cond={"label": 0})[0]

    async def scenario(workers):
        before = workers.models["small"].checksum
        write(0.2)
        old = workers.submit(asked("old"))
        reloading = asyncio.create_task(workers.reload("small"))
        meanwhile = await events_of(workers.submit(asked("meanwhile")))
        await reloading
        assert workers.models["small"].checksum != before
        new = await events_of(workers.submit(asked("new")))
        path.write_bytes(b"no model")
        with pytest.raises(df.DiffuseFastError):
            await workers.reload("small")
        again = await events_of(workers.submit(asked("again")))
        return [only(events, Finished)[0] for events in (await events_of(old), meanwhile, new, again)]

    old, meanwhile, new, again = serve(scenario, {"small": path})
    assert old.x.tobytes() == meanwhile.x.tobytes() == first.tobytes()
    assert new.x.tobytes() == again.x.tobytes() != first.tobytes()
    assert old.record["model_sha256"] != new.record["model_sha256"]


def test_a_worker_does_not_take_files_that_were_replaced(tmp_path):
    """It would draw with weights that no record names."""
    path = tmp_path / "digits.onnx"
    path.write_bytes(df.load("digits").path.read_bytes())

    async def main():
        workers = Workers({"digits": path}, warm_timeout=PATIENCE)
        path.write_bytes(path.read_bytes())
        with pytest.raises(StartError, match="replaced"):
            await workers.start()

    asyncio.run(main())
