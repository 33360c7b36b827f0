"""The loop in the compiled core: the bits of the Python loop that drives the same network, and its ways to end."""

from __future__ import annotations

import copy
import gc
import os
import signal
import threading
import time

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.engine.devices.cpu import CpuSlots
from diffuse_fast.engine.devices.native import NativeSlots
from diffuse_fast.engine.loop import slots_class
from diffuse_fast.engine.request import Batch, Defaults
from diffuse_fast.errors import ArgumentError, NetworkError, NonFiniteError, StoppedError
from diffuse_fast.kernels.step import noise_address
from tests.conftest import DOCUMENT, small_proto

N = 3
FLOW = {
    "schedule": df.Schedule.flow().to_json(),
    "prediction_type": "flow",
    "time": {"input": "t", "convention": "timestep", "dtype": "float32"},
    "clip": None,
}
LABELS = {"label": np.array([1, 2, 3])}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """``model(kind)``: the small network as a noise prediction, as a flow, or with a learned variance."""
    onnx = pytest.importorskip("onnx")
    folder, made = tmp_path_factory.mktemp("native"), {}

    def make(kind):
        if kind in made:
            return made[kind]
        document, change = copy.deepcopy(DOCUMENT), {}
        if kind == "flow":
            document.update(copy.deepcopy(FLOW))
            change = {"t": (onnx.TensorProto.FLOAT, ["B"])}
        if kind == "variance":
            document["variance"] = "learned_range"
            change = {"output": (onnx.TensorProto.FLOAT, ["B", 4, 3])}
        proto = small_proto(document, **change)
        if kind == "variance":
            proto.graph.node[-1].output[0] = "half"
            proto.graph.node.append(onnx.helper.make_node("Concat", ["half", "scaled"], ["output"], axis=1))
        path = folder / f"{kind}.onnx"
        path.write_bytes(proto.SerializeToString())
        made[kind] = df.load(path)
        return made[kind]

    return make


def in_python(monkeypatch):
    """From here on, the Python loop."""
    for module in ("loop", "sampler"):
        monkeypatch.setattr(f"diffuse_fast.engine.{module}.slots_class", lambda setup: CpuSlots)


def sampled_by_both(monkeypatch, draw):
    """What ``draw`` returns with the loop in the core, after a check that the Python loop gives the same bits."""
    native = draw()
    in_python(monkeypatch)
    assert native.tobytes() == draw().tobytes()
    return native


def sample(model, solver="ddim", steps=6, n=N, **options):
    return df.sample(model, n, steps, solver=solver, **{"seed": 5, "cond": LABELS, "runtime": "native", "threads": 1, **options})


KINDS_OF_MODEL = {solver: "flow" if solver.startswith("flow_") else "epsilon" for solver in df.solvers()}


@pytest.mark.parametrize("guidance", [1.0, 2.0, [0.0, 1.0, 3.0]])
@pytest.mark.parametrize("solver", KINDS_OF_MODEL)
def test_every_solver(model, monkeypatch, solver, guidance):
    sampled_by_both(monkeypatch, lambda: sample(model(KINDS_OF_MODEL[solver]), solver, guidance_scale=guidance))


@pytest.mark.parametrize(
    "options",
    [
        {"clip": df.DynamicThreshold(0.9)},
        {"guidance_scale": 3.0, "guidance_rescale": 0.7},
        {"guidance_scale": 3.0, "guidance_interval": (0.5, 4.0)},
        {"guidance_scale": 3.0, "guidance_batch": "separate"},
        {"guidance_scale": 3.0, "negative_cond": {"label": [2, 0, 1]}},
        {"known": np.full((2, 3), 0.25, np.float32), "mask": [[1.0], [0.0]]},
        {"noise": np.random.default_rng(1).normal(size=(N, 2, 3))},
        {"data": np.zeros((N, 2, 3), np.float32), "begin": 500},
        {"batch_size": 2},
        {"step_noise": lambda i: np.full((N, 2, 3), i / 10), "solver": "ddpm"},
        {
            "step_noise": lambda i: np.full((N, 2, 3), i / 10),
            "solver": "heun",
            "s_churn": 3.0,
            "s_tmax": 50.0,
            "guidance_scale": 2.0,
        },
    ],
    ids=lambda options: " ".join(options),
)
def test_every_option(model, monkeypatch, options):
    sampled_by_both(monkeypatch, lambda: sample(model("epsilon"), **options))


@pytest.mark.parametrize("scale", [2.0, 0.0])  # at 0 the conditional output is needed for its variance alone
def test_a_learned_variance(model, monkeypatch, scale):
    sampled_by_both(monkeypatch, lambda: sample(model("variance"), "ddpm", variance_type="learned_range", guidance_scale=scale))


def requests(model):
    known = {"known": np.full((2, 3), 0.5, np.float32), "mask": [[1.0], [0.0]]}
    churned = model.plan("heun", 5, s_churn=3.0, s_tmax=50.0, timestep_spacing="karras", timestep_rounding="nearest")
    return [
        df.Request(seed=1, cond={"label": 1}),
        df.Request(plan=model.plan("dpmpp_3m_sde", 9), seed=2, cond={"label": 2}),
        df.Request(plan=churned, seed=3, cond={"label": 3}),
        df.Request(plan=model.plan("ddpm", 4), seed=4, cond={"label": 0}, guidance_scale=2.0),
        df.Request(plan=model.plan("unipc", 7), seed=5, cond={"label": 1}),
        df.Request(plan=model.plan("ddim", 3), seed=6, cond={"label": 2}, **known),
    ]


def sampler(model, steps=5, **options):
    return df.Sampler(model, model.plan("ddpm", steps), runtime="native", threads=1, **options)


@pytest.mark.parametrize("batch_size", [None, 4, 1])
def test_mixed_requests(model, monkeypatch, batch_size):
    small = model("epsilon")
    asked = requests(small)
    sampled_by_both(monkeypatch, lambda: sampler(small).sample_requests(asked, batch_size=batch_size))


def test_requests_that_come_and_go(model):
    drawer = sampler(model("epsilon"))
    alone = [drawer.sample_requests([asked])[0] for asked in requests(drawer.model)]
    slots = slots_class(drawer.setup)(drawer.setup, 2, Defaults(drawer.plan, 1.0))
    assert isinstance(slots, NativeSlots)
    waiting, running, results = list(enumerate(requests(drawer.model))), {}, {}
    while waiting or running:
        while waiting and len(running) < 2:
            number, asked = waiting.pop(0)
            running[slots.admit(asked, number)] = number
        slots.tick()
        for slot in [slot for slot in running if slots.done(slot)]:
            results[running.pop(slot)] = slots.result(slot)
            slots.retire(slot)
    for number, expected in enumerate(alone):
        np.testing.assert_array_equal(results[number], expected)


def test_kept_slots_take_the_next_batch(model):
    drawer = sampler(model("epsilon"))
    first = drawer.sample(N, seed=1, cond=LABELS)
    drawer.sample(N, seed=2, cond={"label": 0}, known=np.ones((2, 3), np.float32), mask=np.ones((2, 3)))
    drawer.with_plan(drawer.model.plan("dpmpp_3m", 4)).sample(N, seed=3, cond=LABELS)
    np.testing.assert_array_equal(drawer.sample(N, seed=1, cond=LABELS), first)


def test_the_callback_sees_every_row(model, monkeypatch):
    def draw():
        seen = []
        sample(model("epsilon"), "heun", 4, s_churn=3.0, s_tmax=50.0, callback=lambda i, x: seen.append((i, x.copy())))
        return np.concatenate([np.full((1, N, 2, 3), i) + x[None] for i, x in seen])

    assert len(sampled_by_both(monkeypatch, draw)) > 7


def test_progress_and_a_callback_that_samples(model):
    small = model("epsilon")
    plain = sample(small)
    inner = []
    assert sample(small, progress=True, callback=lambda i, x: inner.append(sample(small))).tobytes() == plain.tobytes()
    assert len(inner) == 6 and all(one.tobytes() == plain.tobytes() for one in inner)


def test_an_exception_in_a_callback_ends_the_run(model):
    drawer = sampler(model("epsilon"))
    expected = drawer.sample(1, seed=1, cond={"label": 1})

    def fail(i, x):
        if i == 2:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        drawer.sample(1, seed=1, cond={"label": 1}, callback=fail)
    np.testing.assert_array_equal(drawer.sample(1, seed=1, cond={"label": 1}), expected)


def test_integer_timesteps_are_checked_before_the_run(model):
    small = model("epsilon")
    plan = df.plan(small.schedule, "ddim", timesteps=[900.0, 10.25], prediction_type="epsilon")
    with pytest.raises(ArgumentError, match=r"10\.25 is not an integer"):
        df.Sampler(small, plan, runtime="native").sample(N, cond=LABELS)


def test_nan_names_the_row_and_the_sample(model):
    small = model("epsilon")
    slots = slots_of(small, 5)
    slots.state[1, 0, 0] = np.inf
    with pytest.raises(NonFiniteError, match="row 0") as caught:
        slots.run()
    assert (caught.value.row, caught.value.samples) == (0, (1,))
    expected = sampler(small).sample(N, seed=4, cond=LABELS)
    slots.retire(1)
    slots.run()  # the others go on
    np.testing.assert_array_equal(np.delete(slots.results(), 1, 0), np.delete(expected, 1, 0))


def test_an_index_that_the_table_does_not_have(model):
    with pytest.raises(NetworkError, match="index of a Gather"):
        slots_of(model("epsilon"), 5, {"label": np.full(N, 77)})


def slots_of(model, steps, cond=LABELS):
    """Slots with a batch of N samples."""
    drawer = sampler(model, steps)
    slots = slots_class(drawer.setup)(drawer.setup, N, Defaults(drawer.plan, 1.0))
    slots.admit_batch(Batch(drawer.plan, *noise_address([4] * N, list(range(N)), N), [cond]))
    return slots


def long_slots(model):
    """Slots that run for many seconds."""
    batch = 512
    drawer = df.Sampler("digits", "ddpm", 300, runtime="native", threads=1)
    slots = slots_class(drawer.setup)(drawer.setup, batch, Defaults(drawer.plan, 1.0))
    cond = {"label": np.zeros(batch, np.int64)}
    slots.admit_batch(Batch(drawer.plan, *noise_address([4] * batch, list(range(batch)), batch), [cond]))
    return slots


def test_ctrl_c_ends_the_run(model):
    slots, interrupted = long_slots(model), []

    def interrupt():
        time.sleep(0.3)
        interrupted.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        slots.run()
    seconds = time.perf_counter() - interrupted[0]
    thread.join()
    assert seconds < 5  # 20 ms on an idle machine


def test_stop_from_another_thread(model):
    slots = long_slots(model)
    slots.stop()  # nothing runs: does nothing
    timer = threading.Timer(0.3, slots.stop)
    timer.start()
    with pytest.raises(StoppedError):
        slots.run()
    timer.join()
    slots.tick()  # goes on where it was
    for slot in range(1, slots.capacity):
        slots.retire(slot)
    slots.run()
    drawer = df.Sampler("digits", "ddpm", 300, runtime="native", threads=1)
    np.testing.assert_array_equal(slots.result(0), drawer.sample(1, seed=4, cond={"label": 0})[0])


def test_slots_are_for_one_thread_at_a_time(model):
    slots = long_slots(model)
    failed = []

    def use():
        time.sleep(0.2)
        try:
            slots._core.tick()
        except RuntimeError as error:
            failed.append(str(error))
        slots.stop()

    thread = threading.Thread(target=use)
    thread.start()
    with pytest.raises(StoppedError):
        slots.run()
    thread.join()
    assert failed == ["the slots are in use by another thread"]


def test_eight_threads(model):
    drawer = sampler(model("epsilon"))
    expected = [drawer.sample(N, seed=s, cond=LABELS) for s in range(8)]
    results = [[] for _ in range(8)]

    def draw(s):
        for _ in range(20):
            results[s].append(drawer.sample(N, seed=s, cond=LABELS))

    threads = [threading.Thread(target=draw, args=(s,)) for s in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for s in range(8):
        assert len(results[s]) == 20 and all(x.tobytes() == expected[s].tobytes() for x in results[s])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_during_a_run(model):
    drawer = sampler(model("epsilon"))
    expected = drawer.sample(N, seed=1, cond=LABELS)
    slots = long_slots(model)

    def run():
        with pytest.raises(StoppedError):
            slots.run()

    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            os._exit(0 if drawer.sample(N, seed=1, cond=LABELS).tobytes() == expected.tobytes() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    slots.stop()
    thread.join()


def test_nothing_leaks(model):
    resource = pytest.importorskip("resource")
    drawer = sampler(model("epsilon"), 2)

    def draw(times):
        for i in range(times):
            drawer.sample(N, seed=i, cond=LABELS)
        gc.collect()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = draw(500)
    assert draw(2000) - before < 4096  # KiB
