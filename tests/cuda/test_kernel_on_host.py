"""``diffuse_fast.kernels.cuda`` over the step compiled for the host: bit for bit the CPU's kernel, close to the float64 oracle, and
what it refuses."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import numpy as np
import pytest

from diffuse_fast.errors import ArgumentError, ArgumentTypeError, DeviceError, UnavailableError
from diffuse_fast.kernels import cuda, device_array, get_kernel, reference
from diffuse_fast.plans.plan import Row
from diffuse_fast.schedule import Schedule
from diffuse_fast.solver import plan
from tests.cuda.on_device import on_device
from tests.kernels.rows import ROWS, SUMS

pytestmark = pytest.mark.usefixtures("core")

SEEDS, INDICES = [7, 7, 2**63 + 5, 0, 1], [0, 4, 1, 2**32 - 1, 9]
DTYPES = [("float32", "float32"), ("float16", "float16"), ("bfloat16", "bfloat16"), ("float32", "bfloat16"), ("float16", "float32")]


def stored(values, dtype):
    """float32 values as that dtype; bfloat16 as its bits, rounded to nearest even."""
    if dtype != "bfloat16":
        return values.astype(dtype)
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


class Run:
    """Fresh buffers and a table bound to them twice: on the device, and to copies for a kernel of the CPU."""

    def __init__(
        self, rows, *, samples=3, elements=133, dtypes=DTYPES[0], in_place=False, offset=0, seed=0, cpu="scalar", **options
    ):
        rng = np.random.default_rng(seed)
        state, output = dtypes

        def draw(*size, dtype="float32"):
            return stored(rng.standard_normal(size).astype(np.float32), dtype)

        learned = any(row.log_s is not None for row in rows)
        masked = any(row.known_y or row.known_z for row in rows)
        x = draw(samples, elements, dtype=state)
        out = x if in_place else stored(np.full((samples, elements), np.nan, np.float32), state)
        outputs = [draw(samples, elements * (2 if learned else 1), dtype=output) for _ in range(3)]
        registers = draw(8, samples, elements)
        y = draw(samples, elements) if masked else None
        mask = (draw(samples, elements) < 0).astype(np.float32) if masked else None
        common = {"seeds": np.array(SEEDS[:samples], np.uint64), "indices": np.array(INDICES[:samples], np.uint32),
                  "element_offset": offset, "variance_offset": elements if learned else -1}  # fmt: skip
        self.x = on_device(x, state)
        self.out = self.x if in_place else on_device(out, state)
        self.outputs = [on_device(m, output) for m in outputs]
        self.registers = on_device(registers)
        self.step = cuda.CudaKernel().bind(
            rows,
            x=self.x,
            out=self.out,
            outputs=self.outputs,
            registers=self.registers,
            y=None if y is None else on_device(y),
            mask=None if mask is None else on_device(mask),
            **common,
            **options,
        )
        self.cpu_out, self.cpu_registers = out, registers
        self.cpu = get_kernel(cpu).bind(rows, x=x, out=out, outputs=outputs, registers=registers, y=y, mask=mask, **common)

    def both(self, rows, noise_rows):
        """The rows on both sides, once."""
        self.step.place(rows, noise_rows)
        self.step.launch()
        self.cpu.run_each(rows, noise_rows)
        return self

    def once(self):
        samples = self.x.shape[0]
        return self.both([0] * samples, [11] * samples)

    def assert_same_bits(self):
        for ours, theirs in ((self.out, self.cpu_out), (self.registers, self.cpu_registers)):
            got = ours.copy_to_host()
            np.testing.assert_array_equal(got.view(np.uint8), theirs.view(np.uint8))

    def assert_close(self, tolerance):
        np.testing.assert_allclose(self.out.copy_to_host(), self.cpu_out, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(self.registers.copy_to_host(), self.cpu_registers, rtol=tolerance, atol=tolerance)


# ---- one row ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROWS)
def test_every_row_has_the_bits_of_the_cpu(name):
    sizes = ((1, 0), (7, 3), (64, 0), (133, 2))
    for dtypes in DTYPES:
        for elements, offset in sizes if ROWS[name].reduce is None else sizes[-1:]:  # a reduction walks 1024 threads
            for in_place in (False, True):
                Run([ROWS[name]], dtypes=dtypes, elements=elements, offset=offset, in_place=in_place).once().assert_same_bits()


@pytest.mark.parametrize("name", [n for n in [*ROWS, *SUMS] if n != "learned variance alone"])  # its exponent is clipped
@pytest.mark.parametrize("elements", [1, 67])
def test_every_row_is_the_oracles(name, elements):
    # About a dozen float32 roundings of terms of order 1 to 10; the noise itself is good to 1e-5 where |z| is large.
    Run([{**ROWS, **SUMS}[name]], elements=elements, cpu="reference").once().assert_close(2e-5)


@pytest.mark.parametrize("name", SUMS)
def test_sums_over_a_sample_agree_to_a_rounding(name):
    Run([SUMS[name]], elements=2500, offset=6).once().assert_close(5e-7)


@pytest.mark.parametrize("shape", [(3, 2, 7), (2, 1, 4, 4)])
def test_samples_of_any_rank(core, shape):
    row, x = ROWS["noise"], np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    keys = {"seeds": np.array(SEEDS[: shape[0]], np.uint64), "indices": np.array(INDICES[: shape[0]], np.uint32)}
    ours, theirs = on_device(x), x.copy()
    step = cuda.CudaKernel().bind([row], x=ours, out=ours, outputs=[on_device(x)], registers=None, **keys)
    step.place([0] * shape[0], [3] * shape[0])
    step.launch()
    get_kernel("scalar").bind([row], x=theirs, out=theirs, outputs=[x], registers=None, **keys).run(0, 3)
    np.testing.assert_array_equal(ours.copy_to_host(), theirs)


@pytest.mark.parametrize(("elements", "offset"), [(1, 0), (50, 0), (51, 5), (3000, 2)])
def test_normals(elements, offset):
    keys = {"seeds": np.array(SEEDS[:3], np.uint64), "indices": np.array(INDICES[:3], np.uint32)}
    out, expected = device_array.DeviceArray((3, elements)), np.empty((3, elements), np.float32)
    call = {"row": 4, "stream": 2, "scale": 1.5, "element_offset": offset}
    cuda.CudaKernel().normals(out, **keys, **call)
    get_kernel("scalar").normals(expected, **keys, **call)
    np.testing.assert_array_equal(out.copy_to_host(), expected)
    oracle = reference.normals(elements, seed=SEEDS[1], index=INDICES[1], row=4, stream=2, element_offset=offset)
    np.testing.assert_allclose(out.copy_to_host()[1], 1.5 * oracle, atol=2e-5)


# ---- tables ------------------------------------------------------------------------------------------------


def test_samples_stand_at_different_rows_and_some_sit_out():
    table = [row for row in ROWS.values() if not (row.known_y or row.known_z or row.reduce)]
    run = Run(table, samples=5, elements=45, in_place=True)
    for shift in range(0, len(table) - 4, 2):
        run.both([shift, -1, shift + 3, shift + 1, shift + 2], [10 * shift + i for i in range(5)]).assert_same_bits()


def test_a_reduction_beside_rows_without_one():
    table = [ROWS["dynamic threshold"], ROWS["noise"], ROWS["clipped, raw epsilon"]]
    run = Run(table, samples=5, elements=75).both([1, 0, -1, 2, 0], [4, 5, 6, 7, 8])
    assert run.step.variant == cuda.CudaKernel().variant_of(table) == ("general", True)
    run.assert_same_bits()


def random_row(rng):
    """Any combination of terms: each is there or not by the toss of a coin."""

    def some(chance=0.5):
        return float(rng.standard_normal()) if rng.random() < chance else 0.0

    network = bool(rng.random() < 0.9)
    learned = rng.random() < 0.3
    return Row(
        calls_network=network,
        g=tuple(some() for _ in range(3)) if network else (0.0,),
        p=some(),
        q=some() if network else 0.0,
        r=1.0 if rng.random() < 0.5 else 0.7,
        lo=-0.5 if rng.random() < 0.5 else -np.inf,
        hi=0.5 if rng.random() < 0.5 else np.inf,
        a=some(),
        b=some() if network else 0.0,
        d=some(),
        c=tuple(some(0.3) for _ in range(8)),
        s=0.0 if learned else some(),
        log_s=(some(), some()) if learned else None,
        known_y=some(),
        known_z=some(),
        write=int(rng.integers(8)) if rng.random() < 0.5 else None,
        e_x=some(),
        e_m=some() if network else 0.0,
        e_0=some(),
        f=tuple(some(0.3) for _ in range(8)),
    )


@pytest.mark.parametrize("seed", range(5))
def test_random_tables_have_the_bits_of_the_cpu(seed):
    rng = np.random.default_rng(seed)
    for i in range(20):
        table = [random_row(rng) for _ in range(3)]
        elements, offset = int(rng.integers(1, 60)), int(rng.integers(8))
        run = Run(table, elements=elements, dtypes=DTYPES[i % 5], offset=offset, seed=i, in_place=i % 3 == 0)
        run.both([2, 0, 1], [1, 2, 3]).assert_same_bits()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64])
@pytest.mark.parametrize(("solver", "options"), [("dpmpp_2m_sde", {}), ("ddpm", {"clip": (-1, 1)}), ("unipc", {})])
def test_launches_walk_through_a_plan(solver, options, dtype):
    made = plan(Schedule.linear(), solver, 5, prediction_type="epsilon", **options)
    times = np.array([row.timestep for row in made.rows], np.float32)
    t = on_device(np.full(2, -1, dtype))
    run = Run(made.rows, samples=2, elements=40, in_place=True, times=times, t=t, capacity=50)
    assert run.step.capacity == 50
    run.step.place([0, 2], [0, 2])
    assert t.copy_to_host().tolist() == [times[0], times[2]]
    for i in range(len(times)):
        run.step.launch()
        at = [i, i + 2 if i + 2 < len(times) else -1]
        run.cpu.run_each(at, [max(a, 0) for a in at])
        assert t.copy_to_host().tolist() == [times[min(i + 1, len(times) - 1)], times[min(i + 3, len(times) - 1)]]
    run.assert_same_bits()
    run.step.launch()  # once too often: nobody has a row left
    run.assert_same_bits()
    assert run.step.first_bad_rows().tolist() == [-1, -1]


def test_another_table_seed_and_outputs():
    run = Run([ROWS["one step"]], samples=2, elements=21, capacity=4, in_place=True)
    assert run.step.variant == ("one_step", False)
    table = [ROWS["one register"], ROWS["noise"]]
    run.step.load(table)
    assert run.step.variant == cuda.CudaKernel().variant_of(table) == ("general", False)
    seeds, indices = np.array([3, 4], np.uint64), np.array([8, 9], np.uint32)
    run.step.seed(seeds, indices)
    other = np.random.default_rng(9).standard_normal((3, 2, 21)).astype(np.float32)
    run.step.place([1, 0], [5, 6])
    run.step.launch(outputs=[on_device(m) for m in other])
    x = run.cpu_out
    get_kernel("scalar").bind(
        table, x=x, out=x, outputs=list(other), registers=run.cpu_registers, seeds=seeds, indices=indices
    ).run_each([1, 0], [5, 6])
    run.assert_same_bits()


def test_the_first_bad_row_of_each_sample_is_kept():
    run = Run([Row(a=1.0, b=0.1)] * 4 + [Row(a=1.0)], samples=5, elements=300, in_place=True)
    outputs = run.outputs[0].copy_to_host()
    run.step.place([0, 1, 0, 4, -1], [0] * 5)
    run.step.launch()
    assert run.step.first_bad_rows().tolist() == [-1] * 5
    outputs[0, 299], outputs[1, 0], outputs[3, 4], outputs[4, 0] = np.nan, -np.inf, np.nan, np.nan
    run.outputs[0].copy_from_host(outputs)
    run.step.launch()
    run.step.launch()
    # Sample 3 stands past the last row, and sample 4 nowhere.
    assert run.step.first_bad_rows().tolist() == [1, 2, -1, -1, -1]
    run.step.place([0, 0, 0, 4, -1], [0] * 5)
    assert run.step.first_bad_rows().tolist() == [-1] * 5
    run.step.launch()
    assert run.step.first_bad_rows().tolist() == [0, 0, -1, 4, -1]  # every output that is read is checked, whatever its weight


# ---- captured launches ---------------------------------------------------------------------------------------


@pytest.fixture
def captured(core):
    """``captured(work) -> Tape``: what the work launches, not done."""

    def record(work):
        core.finish()
        core.begin_capture()
        try:
            work()
        finally:
            tape = core.end_capture()
        return tape

    return record


def test_one_captured_launch_is_every_row_of_every_table_of_its_variant(captured):
    run = Run([ROWS["noise"]], samples=2, elements=40, in_place=True, capacity=9)
    tape = captured(run.step.launch)
    assert len(tape) == 2  # step, settle
    for solver, steps in (("ddpm", 5), ("euler_ancestral", 8)):
        rows = plan(Schedule.linear(), solver, steps, prediction_type="epsilon").rows
        run.step.load(rows)
        assert run.step.variant == ("one_step_noise", False)
        run.step.place([0, 1], [0, 1])
        at = run.cpu_out
        cpu = get_kernel("scalar").bind(
            rows,
            x=at,
            out=at,
            outputs=[m.copy_to_host() for m in run.outputs],
            registers=None,
            seeds=np.array(SEEDS[:2], np.uint64),
            indices=np.array(INDICES[:2], np.uint32),
        )
        for i in range(steps):
            tape.replay()
            cpu.run_each([i, i + 1 if i + 1 < steps else -1], [i, i + 1])
        run.assert_same_bits()
        assert run.step.first_bad_rows().tolist() == [-1, -1]


@pytest.mark.parametrize("other", ["noise", "one register", "dynamic threshold", "guidance rescale"])
def test_a_launch_replayed_for_rows_of_another_variant_is_found(captured, other):
    run = Run([ROWS["one step"]], samples=3, elements=40, in_place=True, capacity=2)
    tape = captured(run.step.launch)
    before = run.out.copy_to_host()
    run.step.load([ROWS["one step"], {**ROWS, **SUMS}[other]])
    run.step.place([1, 0, -1], [0, 0, 0])
    tape.replay()
    after = run.out.copy_to_host()
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])  # not stepped by half a row
    assert (after[1] != before[1]).any()
    with pytest.raises(DeviceError, match="sample 0 is at a row that the launch does not support: a graph captured for another"):
        run.step.first_bad_rows()
    run.step.place([0, 0, 0], [0, 0, 0])  # forgotten
    tape.replay()
    assert run.step.first_bad_rows().tolist() == [-1, -1, -1]


def test_arrays_may_be_dropped_while_another_captures(captured):
    run = Run([ROWS["dynamic threshold"]], samples=1, elements=8)
    kept = [on_device(np.zeros(5, np.float32)), Run([ROWS["one step"]])]

    def work():
        run.step.launch()
        kept.clear()  # what a garbage collection may do at any time

    tape = captured(work)
    assert tape is not None and len(tape) == 3  # reduce, step, settle


def test_what_waits_cannot_be_captured(captured):
    run = Run([ROWS["one step"]])
    for work in (run.step.first_bad_rows, lambda: run.step.place([0] * 3, [0] * 3), lambda: run.x.copy_to_host()):
        with pytest.raises(DeviceError, match="cudaErrorStreamCaptureUnsupported"):
            captured(work)


# ---- what is refused ---------------------------------------------------------------------------------------


def bind(rows=(ROWS["one step"],), **change):
    x = on_device(np.zeros((2, 6), np.float32))
    buffers = {"x": x, "out": x, "outputs": [on_device(np.zeros((2, 6), np.float32))], "registers": None, "seeds": [0, 0],
               "indices": [0, 1], **change}  # fmt: skip
    return cuda.CudaKernel().bind(list(rows), **buffers)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda: {"seeds": []}, ArgumentError, "for 0 seeds"),
        (lambda: {"seeds": [0] * 5}, ArgumentError, "for 5 seeds"),
        (lambda: {"indices": [0]}, ArgumentError, "indices has 1 entries"),
        (lambda: {"element_offset": -1}, ArgumentError, "element_offset"),
        (lambda: {"element_offset": 2**34}, ArgumentError, r"2\*\*34"),
        (lambda: {"out": on_device(np.zeros((2, 5), np.float32))}, ArgumentError, "out is float32"),
        (lambda: {"out": on_device(np.zeros((2, 6), np.float16))}, ArgumentError, "out is float16"),
        (lambda: {"x": on_device(np.zeros((2, 6)))}, ArgumentTypeError, "x has dtype float64; it must be float32 or float16"),
        (lambda: {"x": np.zeros((2, 6), np.float32)}, ArgumentError, "x is on DLPack's device 1; it must be on a CUDA device"),
        (lambda: {"x": [1.0]}, ArgumentTypeError, "x is a list"),
        (lambda: {"outputs": [on_device(np.zeros((2, 5), np.float32))]}, ArgumentError, "network output"),
        (lambda: {"outputs": [on_device(np.zeros((2, 6), t)) for t in ("f4", "f2")]}, ArgumentError, "different shapes or dtypes"),
        (lambda: {"variance_offset": 1}, ArgumentError, "network output"),
        (lambda: {"registers": on_device(np.zeros((1, 2, 5), np.float32))}, ArgumentError, "registers has shape"),
        (lambda: {"registers": on_device(np.zeros((1, 2, 6), np.float16))}, ArgumentTypeError, "registers has dtype float16"),
        (lambda: {"mask": on_device(np.zeros((2, 5), np.float32))}, ArgumentError, "mask has shape"),
        (lambda: {"y": on_device(np.zeros((2, 6), np.float16))}, ArgumentTypeError, "y has dtype float16"),
        (lambda: {"t": on_device(np.zeros(3, np.float32)), "times": [1.0]}, ArgumentError, "t has shape"),
        (lambda: {"t": on_device(np.zeros(2, np.float32))}, ArgumentError, "needs times"),
        (lambda: {"t": on_device(np.zeros(2, np.float32)), "times": [1.0, 2.0]}, ArgumentError, "one time per row"),
        (lambda: {"rows": [ROWS["one register"]]}, ArgumentError, "register 0"),
        (lambda: {"rows": [ROWS["guidance"]]}, ArgumentError, "network output 1"),
        (lambda: {"rows": [ROWS["learned variance"]]}, ArgumentError, "variance channel"),
        (lambda: {"rows": []}, ArgumentError, "a table of 0 rows"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(change, error, said):
    with pytest.raises(error, match=said):
        bind(**change())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_target_that_shares_a_part_of_x_is_refused(dtype):
    memory, m = (on_device(stored(np.zeros((n, 6), np.float32), dtype), dtype) for n in (4, 2))
    x = memory[:2]
    with pytest.raises(ArgumentError, match="out overlaps x without being x; give x itself or separate memory"):
        bind(x=x, out=memory[1:3], outputs=[m])
    for out in (x, memory[:2], memory[2:]):  # itself, the same memory again, what begins where x ends
        step = bind(x=x, out=out, outputs=[m])
        step.place([0, 0], [0, 0])
        step.launch()
        assert step.first_bad_rows().tolist() == [-1, -1]


def test_a_bound_step_stays_as_it_is_where_something_does_not_fit():
    step = bind(capacity=2)
    for call, said in (
        (lambda: step.load([ROWS["one step"]] * 3), "holds from 1 to 2"),
        (lambda: step.load([ROWS["one register"]]), "register 0"),
        (lambda: step.place([0, 1], [0, 0]), "sample 1 is placed at row 1 of 1"),
        (lambda: step.place([0], [0]), "rows has 1 entries"),
        (lambda: step.seed([1], [2]), "seeds has 1 entries"),
        (lambda: step.launch(outputs=[]), "differ from the bound ones"),
        (lambda: step.launch(outputs=[on_device(np.zeros((2, 6), np.float16))]), "differ from the bound ones"),
    ):
        with pytest.raises(ArgumentError, match=said):
            call()
    step.place([0, 0], [0, 0])
    step.launch()
    assert step.first_bad_rows().tolist() == [-1, -1]


def test_torch_tensors_on_the_cpu_are_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(ArgumentError, match="x is on cpu; the cuda kernel needs it on a CUDA device"):
        bind(x=torch.zeros(2, 6))


@pytest.mark.parametrize(
    ("pretend", "said"),
    [
        ((0, 0, 0, 0), "there is no NVIDIA driver"),
        ((12040, 35, 0, 0), "the NVIDIA driver is for CUDA 12.4; this build needs one for CUDA 13.0"),
        ((13000, 100, 0, 0), "there is an NVIDIA driver, but no device"),
        ((13000, 0, 0, 0), "there is an NVIDIA driver, but no device"),
        ((13000, 0, 1, 70), "no device has the compute capability 7.5 or more"),
    ],
)
def test_what_is_missing_is_named(module, pretend, said):
    # A process each: the reason is determined once per process.
    code = f"""
import importlib.util
from diffuse_fast.errors import UnavailableError
from diffuse_fast.kernels import device_array
spec = importlib.util.spec_from_file_location("_cuda_on_host", {str(module)!r})
device_array._core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(device_array._core)
device_array._core.pretend{pretend}
assert device_array._core.cuda_unavailable_reason().startswith({said!r}), device_array._core.cuda_unavailable_reason()
for call in (lambda: device_array.DeviceArray((2,)), lambda: device_array.Stream()):
    try:
        call()
    except UnavailableError as error:
        assert {said!r} in str(error)
    else:
        raise AssertionError
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_device_without_memory_or_number():
    with pytest.raises(DeviceError, match="out of memory"):
        device_array.DeviceArray((2**40,))
    for call in (lambda: device_array.DeviceArray((1,), device=3), lambda: device_array.Stream(3)):
        with pytest.raises(UnavailableError, match="there is no cuda:3; this machine has 1, from cuda:0"):
            call()


@pytest.fixture
def two_devices(core):
    core.pretend(13000, 0, 2, 90)
    yield core
    core.pretend(13000, 0, 1, 90)


def test_no_device_is_started_but_the_one_that_is_asked_for(two_devices):
    """Choosing a device starts it, and so does nearly every call on one that is current: some 500 MB of its memory."""

    def work():
        stream = device_array.Stream(1)
        x, m = (on_device(np.ones((2, 6), np.float32), device=1, stream=stream.handle) for _ in range(2))
        x.__dlpack__(stream=5)
        arrays.append((stream, x, m))

    def more():  # of threads whose device is cuda:0, which they never chose
        _, x, m = arrays[0]
        kernel = cuda.CudaKernel()
        step = kernel.bind([ROWS["one step"]], x=x, out=x, outputs=[m], registers=None, seeds=[0, 0], indices=[0, 1])
        step.place([0, 0], [0, 0])
        step.launch()
        assert step.first_bad_rows().tolist() == [-1, -1]
        kernel.normals(x, seeds=[0, 0], indices=[0, 1], row=0, stream=0)
        x.copy_from(m)
        arrays.append(step)

    def end():
        arrays.clear()
        two_devices.finish()

    arrays: list = []
    gc.collect()  # what other tests left, on cuda:0
    two_devices.started()
    for part in (work, more, end):
        thread = threading.Thread(target=part)
        thread.start()
        thread.join()
    assert two_devices.started() == [1]


def test_work_goes_to_the_device_of_the_arrays_and_the_callers_stays(two_devices):
    device_array.DeviceArray((1,))  # which starts the caller's
    x, m = (on_device(np.ones((2, 6), np.float32), device=1) for _ in range(2))
    assert (x.device, x.__dlpack_device__(), x[1:].device) == (1, (2, 1), 1)
    step = bind(x=x, out=x, outputs=[m])
    step.place([0, 0], [0, 0])
    step.launch()
    assert two_devices.devices() == (0, 1)
    assert step.first_bad_rows().tolist() == [-1, -1]
    cuda.CudaKernel().normals(x, seeds=[0, 0], indices=[0, 1], row=0, stream=0)
    assert two_devices.devices() == (0, 1)
    with pytest.raises(ArgumentError, match="a network output is on another device than x"):
        bind(x=x, out=x)


def test_a_device_older_than_the_build_is_named(core):
    core.pretend(13000, 0, 1, 61)
    try:
        with pytest.raises(UnavailableError, match=r"cuda:0 has the compute capability 6.1; this build has code for 7.5 or"):
            device_array.DeviceArray((1,))
    finally:
        core.pretend(13000, 0, 1, 90)


@pytest.mark.parametrize("dtypes", DTYPES)
def test_arrays_may_begin_anywhere(dtypes):
    # Rows of 37 elements: no two begin at the same place of a vector.
    state, output = dtypes
    rng = np.random.default_rng(4)
    x, m = (stored(rng.standard_normal((12, 37)).astype(np.float32), dtype) for dtype in dtypes)
    keys = {"seeds": np.array(SEEDS[:3], np.uint64), "indices": np.array(INDICES[:3], np.uint32)}
    for first, second in ((0, 0), (1, 1), (4, 4), (8, 8), (2, 6), (3, 5)):
        ours, theirs = on_device(x, state), x.copy()
        at, of = slice(first, first + 3), slice(second, second + 3)
        step = cuda.CudaKernel().bind([ROWS["noise"]], x=ours[at], out=ours[at], outputs=[on_device(m, output)[of]], registers=None,
                                      element_offset=first, **keys)  # fmt: skip
        step.place([0] * 3, [7] * 3)
        step.launch()
        get_kernel("scalar").bind(
            [ROWS["noise"]], x=theirs[at], out=theirs[at], outputs=[m[of]], registers=None, element_offset=first, **keys
        ).run(0, 7)
        np.testing.assert_array_equal(ours.copy_to_host().view(np.uint8), theirs.view(np.uint8))
