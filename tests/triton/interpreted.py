"""The Triton kernel through triton's interpreter, on CPU tensors, or compiled, on a CUDA device: bit for bit against the compiled
CPU kernel, and against the float64 oracle. Run by test_interpreter.py in a process of its own, where TRITON_INTERPRET is set before
triton is imported.

The interpreter runs the device code's own operations with NumPy. Its ``tl.sqrt_rn`` is NumPy's root, which rounds to nearest; that
the compiled kernel's root does so is seen in its PTX (test_ahead_of_time.py). Two faults of the interpreter are put right by the
fixture ``repaired``.
"""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from diffuse_fast.errors import ArgumentError, DiffuseFastError, NonFiniteError
from diffuse_fast.kernels import forward as forward_on_cpu
from diffuse_fast.kernels import get_kernel, reference, triton_noise
from diffuse_fast.kernels import step as step_on_cpu
from diffuse_fast.kernels import triton as host
from diffuse_fast.kernels.arrays import DeviceArrays
from diffuse_fast.kernels.rows import pack
from diffuse_fast.plans.plan import Reduction, Row
from diffuse_fast.schedule import Schedule
from diffuse_fast.solver import plan
from tests.kernels.rows import BASE, ROWS, SUMS

# Where the kernel runs: in the interpreter on the CPU, or compiled on a CUDA device (the tests that compare bits).
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"

KERNEL = host.TritonKernel()
# The functions of diffuse_fast.kernels have the names of these modules.
forward_module, step_module = (sys.modules[f"diffuse_fast.kernels.{name}"] for name in ("forward", "step"))
SEEDS, INDICES = [7, 7, 2**63 + 5, 0, 1], [0, 4, 1, 2**32 - 1, 9]

HALF = [(torch.float16, torch.float16), (torch.bfloat16, torch.bfloat16), (torch.float32, torch.bfloat16)]


# A GPU computes with infinities and NaN without a warning.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True)
def repaired(monkeypatch):
    """float32 to bfloat16 is rounded to nearest even, as cvt.rn.bf16.f32 does, and not truncated; a scalar comparison that is
    broadcast stays a boolean instead of a float32."""
    if not INTERPRETED:
        return
    from triton.runtime import interpreter

    plain, splat = interpreter._convert_float, interpreter.InterpreterBuilder.create_splat

    def convert(data, source, target, rounding):
        if (source, target) != (tl.float32, tl.bfloat16):
            return plain(data, source, target, rounding)
        return torch.from_numpy(np.ascontiguousarray(data)).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)

    def create_splat(self, kind, value):
        if value.data.dtype == np.bool_:
            return interpreter.TensorHandle(np.full(kind.shape, value.data[0]), tl.int1)
        return splat(self, kind, value)

    monkeypatch.setattr(interpreter, "_convert_float", convert)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_splat", create_splat)


class Run:
    """Fresh buffers with a bound table, and copies of them bound to a CPU kernel."""

    def __init__(
        self,
        rows,
        *,
        samples=3,
        elements=333,
        state=torch.float32,
        output=torch.float32,
        masked=False,
        in_place=False,
        offset=0,
        seed=0,
        cpu="scalar",
        **options,
    ):
        rng = np.random.default_rng(seed)

        def draw(*size, dtype=torch.float32):
            return torch.from_numpy(rng.standard_normal(size).astype(np.float32)).to(dtype).to(DEVICE)

        learned = any(row.log_s is not None for row in rows)
        self.x = draw(samples, elements, dtype=state)
        self.out = self.x if in_place else torch.full_like(self.x, torch.nan)
        self.outputs = [draw(samples, elements * (2 if learned else 1), dtype=output) for _ in range(3)]
        self.registers = draw(8, samples, elements)
        self.y = draw(samples, elements) if masked else None
        self.mask = (draw(samples, elements) < 0).to(torch.float32) if masked else None
        common = {"seeds": SEEDS[:samples], "indices": INDICES[:samples], "element_offset": offset,
                  "variance_offset": elements if learned else -1}  # fmt: skip
        tensors = (self.x, self.out, *self.outputs, self.registers, self.y, self.mask)
        copied = {id(t): t.cpu().clone() for t in tensors if t is not None}

        def numpy(t):
            return None if t is None else _numpy(copied[id(t)])

        self.cpu_out, self.cpu_registers = copied[id(self.out)], copied[id(self.registers)]
        self.cpu = get_kernel(cpu).bind(
            list(rows),
            x=numpy(self.x),
            out=numpy(self.out),
            outputs=[numpy(m) for m in self.outputs],
            registers=numpy(self.registers),
            y=numpy(self.y),
            mask=numpy(self.mask),
            **common | {"seeds": np.array(SEEDS[:samples], np.uint64), "indices": np.array(INDICES[:samples], np.uint32)},
        )
        self.step = KERNEL.bind(
            list(rows),
            x=self.x,
            out=self.out,
            outputs=self.outputs,
            registers=self.registers,
            y=self.y,
            mask=self.mask,
            **common,
            **options,
        )

    def both(self, rows, noise_rows):
        """Apply the rows on both sides, once."""
        self.step.place(rows, noise_rows)
        self.step.launch()
        self.cpu.run_each(rows, noise_rows)
        return self

    def assert_same_bits(self):
        for ours, theirs in ((self.out, self.cpu_out), (self.registers, self.cpu_registers)):
            np.testing.assert_array_equal(_bits(ours), _bits(theirs))


def _numpy(t):
    return t.view(torch.uint16).numpy() if t.dtype == torch.bfloat16 else t.numpy()


def _bits(t):
    """The bits as integers. All NaN are equal, because their payload depends on the machine."""
    t = t.cpu()
    bits = _numpy(t).copy()
    if t.dtype == torch.bfloat16:
        bits[torch.isnan(t).numpy()] = 0x7FC0
        return bits
    bits[np.isnan(bits)] = np.nan
    return bits.view(np.uint16 if t.dtype == torch.float16 else np.uint32)


def _masked(name):
    return name.startswith("known region")


# ---- one row, all variants ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROWS)
def test_every_row_has_the_bits_of_the_cpu(name):
    Run([ROWS[name]], masked=_masked(name)).both([0] * 3, [11] * 3).assert_same_bits()


@pytest.mark.parametrize("name", ["clipped, posterior", "eight registers", "learned variance", "known region", "dynamic threshold"])
@pytest.mark.parametrize("dtypes", HALF)
def test_half_precision_has_the_bits_of_the_cpu(name, dtypes):
    Run([ROWS[name]], state=dtypes[0], output=dtypes[1], masked=_masked(name)).both([0] * 3, [11] * 3).assert_same_bits()


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("dtypes", [*HALF, (torch.float16, torch.float32), (torch.bfloat16, torch.float32)])
@pytest.mark.parametrize("elements", [1, 16, 333, 1024, 2064])
def test_every_case_has_the_bits_of_the_cpu(name, dtypes, elements):
    run = Run([ROWS[name]], elements=elements, state=dtypes[0], output=dtypes[1], masked=_masked(name))
    run.both([0] * 3, [11] * 3).assert_same_bits()


@pytest.mark.parametrize("name", [n for n in [*ROWS, *SUMS] if n != "learned variance alone"])  # its exponent is clipped
@pytest.mark.parametrize("elements", [pytest.param(1, marks=pytest.mark.slow), 67])
def test_every_row_agrees_with_the_oracle(name, elements):
    row = {**ROWS, **SUMS}[name]
    run = Run([row], elements=elements, masked=_masked(name), cpu="reference").both([0] * 3, [11] * 3)
    np.testing.assert_allclose(run.out, run.cpu_out, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(run.registers, run.cpu_registers, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("offset", [0, 6])
def test_sums_over_a_sample_agree_to_a_rounding(name, offset):
    run = Run([SUMS[name]], elements=5000, offset=offset).both([0] * 3, [11] * 3)
    np.testing.assert_allclose(run.out, run.cpu_out, rtol=5e-7, atol=5e-7)


@pytest.mark.parametrize("elements", [1, 3, 4, 127, 1024, 4096, 5001])
def test_sizes(elements):
    run = Run([ROWS["clipped, posterior"]], samples=2, elements=elements)
    run.both([0] * 2, [3] * 2).assert_same_bits()


@pytest.mark.parametrize("name", ["noise", "eight registers", "known region", "register written with nothing"])
@pytest.mark.parametrize("state", [torch.float32, torch.bfloat16])
def test_in_place_changes_no_bit(name, state):
    run = Run([ROWS[name]], state=state, masked=_masked(name), in_place=True).both([0] * 3, [11] * 3)
    run.assert_same_bits()
    separate = Run([ROWS[name]], state=state, masked=_masked(name)).both([0] * 3, [11] * 3)
    np.testing.assert_array_equal(_bits(run.out), _bits(separate.out))


@pytest.mark.parametrize("offset", [1, 2, 3, 4, 7, 2**33 + 5])
def test_shards_have_the_bits_of_the_cpu(offset):
    Run([ROWS["known region"]], samples=2, elements=1500, masked=True, offset=offset).both([0] * 2, [2] * 2).assert_same_bits()


def test_zeros_keep_their_sign_and_bounds_their_values():
    values = np.array([[0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 1e-45]], np.float32)
    for row in (Row(q=1.0, lo=0.0, hi=1.0, d=1.0), Row(q=1.0, lo=-1.0, hi=0.0, d=1.0), Row(b=1.0), Row(b=-1.0), Row(b=0.5)):
        for table in ([row], [row, Row(a=1.0)]):  # alone, and beside rows with other terms
            run = Run(table, samples=1, elements=8)
            for m in run.outputs:
                m.copy_(torch.from_numpy(values))
            out = np.empty_like(values)
            get_kernel("scalar").bind(
                [row],
                x=run.x.numpy(),
                out=out,
                outputs=[values],
                registers=None,
                seeds=np.zeros(1, np.uint64),
                indices=np.zeros(1, np.uint32),
            ).run(0, 0)
            run.step.place([0], [0])
            run.step.launch()
            np.testing.assert_array_equal(_bits(run.out), _bits(torch.from_numpy(out)))


@pytest.mark.parametrize("v", [-1e30, -88.0, -0.0, 87.99, 89.0, 1e30])
def test_a_learned_deviation_is_clipped_as_on_the_cpu(v):
    run = Run([Row(log_s=(0.0, 1.0))], elements=16)
    run.outputs[0][:, 16:] = v
    run.cpu._keep[2][0][:, 16:] = v
    run.both([0] * 3, [1] * 3).assert_same_bits()


# ---- the forward process ----------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("aimed", [False, True])
@pytest.mark.parametrize("elements", [1, 63, 1024, 2500])
def test_the_forward_process_has_the_bits_of_the_cpu(elements, aimed, given):
    rng = np.random.default_rng(0)
    x0, noise = (torch.from_numpy(rng.standard_normal((3, elements)).astype(np.float32)) for _ in range(2))
    x0[2] = torch.nan
    # The last sample is pure noise: its data must not be read.
    coefficients = np.array([[0.8, 0.0, 0.0], [0.6, -0.5, 1.0], [-0.6, 1.0, 0.0], [0.8, 0.0, 0.0]], np.float32)
    indices = np.array([0, 2**31, 2**32 - 1], np.uint32)
    call = {"coefficients": coefficients, "indices": indices, "seed": 2**63 + 5, "row": 2**32 - 1}
    ours, theirs = ([torch.full_like(x0, 9.0).to(DEVICE) for _ in range(2)] for _ in range(2))
    KERNEL.forward(x0.to(DEVICE), ours[0], ours[1] if aimed else None, noise=noise.to(DEVICE) if given else None, **call)
    theirs = [t.cpu().numpy() for t in theirs]
    get_kernel("scalar").forward(
        x0.numpy(), theirs[0], theirs[1] if aimed else None, noise=noise.numpy() if given else None, **call
    )
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(_bits(mine), _bits(torch.from_numpy(other)))


def test_the_forward_process_of_a_tensor_on_a_device(monkeypatch):
    """``kernels.forward`` on a device, with the CPU as the device."""
    x0 = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    call = {"target": ([-0.6, -0.8, 0.0], [0.8, 0.6, 1.0]), "seed": 5, "step": 3, "index": 4}
    alpha, sigma = [0.8, 0.6, 1.0], torch.tensor([0.6, 0.8, 0.0])
    expected = forward_on_cpu(x0, alpha, sigma, **call)
    monkeypatch.setattr(forward_module, "arrays_for", DeviceArrays)
    monkeypatch.setattr(forward_module, "get_kernel", lambda name, device: KERNEL)
    out = torch.empty_like(x0), torch.empty_like(x0)
    result = forward_on_cpu(x0, alpha, sigma, out=out, **call)
    assert result[0] is out[0] and result[1] is out[1]
    for mine, other in zip((*result, *forward_on_cpu(x0, alpha, sigma, **call)), expected * 2, strict=True):
        assert torch.equal(mine, other)
    assert forward_on_cpu(x0, alpha, sigma, seed=5)[1] is None
    for change, named in (
        ({"noise": np.zeros((3, 5, 7), np.float32)}, "noise is a ndarray; x0 is on cpu: give a tensor there"),
        ({"noise": torch.zeros(3, 5)}, r"noise has shape \(3, 5\); it must have x0's shape \(3, 5, 7\)"),
        ({"out": (x0.double(), None)}, "out has dtype torch.float64; it must be float32"),
        ({"out": (out[0], out[0]), "target": (0.0, 1.0)}, "overlap"),
    ):
        with pytest.raises(DiffuseFastError, match=named):
            forward_on_cpu(x0, alpha, sigma, **change)
    memory = torch.zeros(4, 5, 7)
    with pytest.raises(DiffuseFastError, match=r"out\[0\] overlaps x0 without being x0"):
        forward_on_cpu(memory[:3], alpha, sigma, seed=5, out=(memory[1:], None))
    for wrong, named in ((x0.double(), "float64"), (x0.mT, "contiguous"), (x0.clone().requires_grad_(), "requires grad")):
        with pytest.raises(DiffuseFastError, match=named):
            forward_on_cpu(wrong, alpha, sigma)


# ---- tables: samples at different rows -------------------------------------------------------------------


def test_samples_at_different_rows_and_inactive_ones():
    table = [row for name, row in ROWS.items() if name != "dynamic threshold"]
    for masked in (False, True):
        run = Run(table, samples=5, elements=100, masked=masked, in_place=True)
        for first in (*range(0, len(table) - 4, 4), len(table) - 4):
            rows = [first, -1, first + 3, first + 1, first + 2]
            run.both(rows, [10 * first + i for i in range(5)]).assert_same_bits()


def test_a_reduction_beside_rows_without_one():
    table = [ROWS["dynamic threshold"], ROWS["noise"], ROWS["clipped, raw epsilon"], SUMS["langevin"]]
    run = Run(table, samples=5, elements=300).both([1, 0, -1, 2, 0], [4, 5, 6, 7, 8])
    run.assert_same_bits()


def _random_row(rng) -> Row:
    """A random combination of terms."""

    def some(chance=0.5):
        return float(rng.standard_normal()) if rng.random() < chance else 0.0

    network = rng.random() < 0.9
    learned = rng.random() < 0.3
    return Row(
        calls_network=bool(network),
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


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(s, marks=pytest.mark.slow) for s in range(4, 200))])
def test_random_tables_have_the_bits_of_the_cpu(seed):
    rng = np.random.default_rng(seed)
    table = [_random_row(rng) for _ in range(3)]
    state, output = [(torch.float32, torch.float32), *HALF][seed % 4]
    run = Run(table, samples=3, elements=50, state=state, output=output, masked=bool(seed % 2), seed=seed, in_place=seed % 3 == 0)
    run.both([2, 0, 1], [1, 2, 3]).assert_same_bits()


@pytest.mark.parametrize(
    ("solver", "options"), [("dpmpp_2m_sde", {}), ("ddpm", {"clip": (-1, 1)}), ("unipc", {}), ("dpmpp_2s", {}), ("ipndm", {})]
)
def test_launches_walk_through_a_plan(solver, options):
    made = plan(Schedule.linear(), solver, 5, prediction_type="epsilon", **options)
    times = np.array([row.timestep for row in made.rows], np.float32).tolist()
    t = torch.full((2,), -1.0)
    run = Run(made.rows, samples=2, elements=40, in_place=True, times=times, t=t, capacity=50)
    run.step.place([0, 2], [0, 2])
    assert t.tolist() == [times[0], times[2]]
    for i in range(len(times)):
        run.step.launch()
        at = [i, i + 2 if i + 2 < len(times) else -1]
        run.cpu.run_each(at, [max(a, 0) for a in at])
        assert t.tolist() == [times[min(i + 1, len(times) - 1)], times[min(i + 3, len(times) - 1)]]
    run.assert_same_bits()
    run.step.launch()  # once too often: no sample has a row left
    run.assert_same_bits()
    assert run.step.first_bad_rows().tolist() == [-1, -1]


def test_an_inactive_sample_keeps_its_time():
    t = torch.tensor([5.0, 6.0])
    run = Run([Row(a=0.5), Row(a=0.5)], samples=2, elements=8, times=[3.0, 2.0], t=t)
    run.step.place([-1, 1], [0, 1])
    run.step.launch()
    assert t.tolist() == [5.0, 2.0]


# ---- the host's side -------------------------------------------------------------------------------------


def test_the_first_bad_row_of_each_sample_is_kept():
    table = [Row(a=1.0, b=0.1)] * 4 + [Row(a=1.0)]
    run = Run(table, samples=5, elements=2100, in_place=True)
    run.step.place([0, 1, 0, 4, -1], [0] * 5)
    run.step.launch()
    assert run.step.first_bad_rows().tolist() == [-1] * 5
    run.outputs[0][0, 2099], run.outputs[0][1, 0], run.outputs[0][4, 0] = np.nan, -np.inf, np.nan
    run.outputs[1][2, 5] = np.nan  # no row uses that output
    run.outputs[0][3, 5] = np.nan  # that sample has no row left
    run.step.launch()
    run.step.launch()
    assert run.step.first_bad_rows().tolist() == [1, 2, -1, -1, -1]
    assert run.step.first_bad_rows().dtype == np.int32
    run.step.place([-1] * 5, [0] * 5)
    assert run.step.first_bad_rows().tolist() == [-1] * 5


def test_a_term_with_weight_zero_is_not_read():
    run = Run([Row(b=2.0), Row(a=1.0, b=1.0, c=(1.0,), d=1.0, p=1.0, q=1.0)], elements=20)
    run.x.fill_(np.nan)
    run.registers.fill_(np.nan)
    run.step.place([0] * 3, [0] * 3)
    run.step.launch()
    np.testing.assert_array_equal(run.out, 2.0 * run.outputs[0])


def test_another_table_and_other_keys():
    run = Run([ROWS["noise"]] * 2, samples=2, capacity=8)
    run.both([0, 1], [0, 1]).assert_same_bits()
    variant = run.step.variant
    assert variant == KERNEL.variant_of([ROWS["noise"]], x=run.x, outputs=run.outputs, seeds=[0, 0])
    longer = [Row(a=0.1 * k, b=0.5, s=0.3) for k in range(1, 9)]
    run.step.load(longer)
    assert run.step.variant == variant and hash(run.step.variant) == hash(variant)
    run.step.seed([1, 2], [3, 4])
    run.step.place([7, 3], [5, 6])
    run.step.launch()
    out = np.empty_like(run.out)
    cpu = get_kernel("scalar").bind(
        longer,
        x=run.x.numpy(),
        out=out,
        outputs=[run.outputs[0].numpy()],
        registers=None,
        seeds=np.array([1, 2], np.uint64),
        indices=np.array([3, 4], np.uint32),
    )
    cpu.run_each([7, 3], [5, 6])
    np.testing.assert_array_equal(run.out, out)
    run.step.load([ROWS["one step"]])
    assert run.step.variant != variant
    with pytest.raises(ArgumentError, match="9 rows"):
        run.step.load([ROWS["noise"]] * 9)
    with pytest.raises(ArgumentError, match="times"):
        run.step.load([ROWS["noise"]], times=[1.0, 2.0])


def test_steps_of_one_solver_share_a_variant():
    x = torch.zeros(2, 64)
    variants = {
        KERNEL.variant_of(
            plan(Schedule.linear(), "ddim", steps, prediction_type="epsilon", clip=(-1, 1)).rows, x=x, outputs=[x], seeds=[0, 0]
        )
        for steps in (5, 20, 50)
    }
    assert len(variants) == 1


def test_a_launch_can_use_other_outputs():
    run = Run([ROWS["three outputs"]])
    elsewhere = [m.clone() for m in run.outputs]
    for m in run.outputs:
        m.fill_(np.nan)
    run.step.place([0] * 3, [11] * 3)
    run.step.launch(outputs=elsewhere)
    run.cpu.run(0, 11)
    run.assert_same_bits()


def damaged(reduction, value):
    """A packed row whose reduction has an invalid first value."""
    table = pack([Row(d=1.0, q=1.0, reduce=reduction)])
    table["reduce_0"][0] = value
    return table


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Row(g=(0.0, 0.0, 1.0), b=1.0), "network output 2"),
        (Row(a=1.0, log_s=(0.0, 0.0)), "variance channel"),
        (Row(a=1.0, c=(0.0, 1.0)), "register 1"),
        (Row(a=1.0, write=1, e_x=1.0), "register 1"),
        (Row(a=1.0, write=9, e_x=1.0), "register"),
        (Row(a=1.0, write=0, f=(0.0, 0.0, 1.0)), "register 2"),
        (Row(known_y=1.0), "known region"),
        (damaged(Reduction("dynamic_threshold", (0.9, 2.0)), -0.1), "quantile"),
        (damaged(Reduction("guidance_rescale", (0.9,)), np.inf), "phi"),
        (damaged(Reduction("langevin_given", (0.1, 1.0)), 0.1), "a register with the noise"),
    ],
)
def test_a_row_that_needs_a_missing_tensor_is_refused(row, message):
    x = torch.zeros(1, 8)
    given = {"x": x, "out": x, "outputs": [x], "registers": torch.zeros(1, 1, 8), "seeds": [0], "indices": [0], "mask": x}
    rows = row if isinstance(row, np.ndarray) else [row]
    with pytest.raises(ArgumentError, match=message):
        KERNEL.bind(rows, **given)
    step = KERNEL.bind([Row(a=1.0)], **given)
    before = step.variant
    with pytest.raises(ArgumentError, match=message):
        step.load(rows)
    assert step.variant == before


def test_packed_rows_are_rows():
    run = Run([ROWS["clipped, posterior"]])
    run.step.load(pack([ROWS["clipped, posterior"]]))
    run.both([0] * 3, [11] * 3).assert_same_bits()


# ---- the reduction's quantile -----------------------------------------------------------------------------


@pytest.mark.parametrize("values", ["normal", "ties", "wide", "constant", "zeros"])
def test_the_threshold_is_the_exact_quantile(values):
    rng = np.random.default_rng(5)
    ratios, n = (0.0, 0.5, 0.995, 1.0), 1500  # one sample for each
    data = {
        "normal": rng.standard_normal((4, n)) * 2,
        "ties": rng.integers(-3, 4, (4, n)) / 2,
        "wide": rng.standard_normal((4, n)) * 10.0 ** rng.integers(-15, 16, (4, n)),
        "constant": np.full((4, n), 1.75),
        "zeros": np.zeros((4, n)),
    }[values].astype(np.float32)
    table = [Row(q=1.0, d=1.0, lo=-1.0, hi=1.0, reduce=Reduction("dynamic_threshold", (ratio, 1e38))) for ratio in ratios]
    run = Run(table, samples=4, elements=n)
    run.outputs[0].copy_(torch.from_numpy(data))
    run.step.place(range(4), [0] * 4)
    run.step.launch()
    # The ratio itself is a float32 in the table.
    magnitudes = np.abs(data.astype(np.float64))
    exact = np.array([np.quantile(m, np.float64(np.float32(ratio))) for m, ratio in zip(magnitudes, ratios, strict=True)])
    exact = exact.clip(1.0, 1e38)[:, None]
    np.testing.assert_allclose(run.out, np.clip(data, -exact, exact) / exact, rtol=3e-7)


def test_a_non_finite_sample_is_reported_and_changes_no_other():
    run = Run([ROWS["dynamic threshold"]])
    run.outputs[0][1, 3] = run.outputs[0][2, 4] = np.inf
    run.cpu._keep[2][0][1, 3] = run.cpu._keep[2][0][2, 4] = np.inf
    run.outputs[0][2, 5] = run.cpu._keep[2][0][2, 5] = np.nan
    run.both([0] * 3, [11] * 3).assert_same_bits()
    assert run.step.first_bad_rows().tolist() == [-1, 0, 0]


def test_nearly_constant_outputs_are_rescaled():
    """The case of tests/kernels/test_rescale.py, compared with the CPU."""
    run = Run([SUMS["guidance rescale"]], samples=3, elements=300)
    for j, level in enumerate((0.7, 0.2)):
        for m in (run.outputs[j], run.cpu._keep[2][j]):
            m[0] = level
            m[1] = 1.0 + 1e-6 * m[1]
            m[2] = level
            m[2][0] = level + 1e-3
    run.both([0] * 3, [11] * 3)
    np.testing.assert_allclose(run.out, run.cpu_out, rtol=5e-7, atol=5e-7)


def test_a_constant_output_has_no_scale_to_restore_and_a_score_of_zero_no_step():
    run = Run([SUMS["guidance rescale"], SUMS["langevin"]], samples=2, elements=100)
    for side in (run.outputs, run.cpu._keep[2]):
        side[0][0], side[1][0], side[0][1] = 0.5, 0.25, 0.0
    run.both([0, 1], [11, 11]).assert_same_bits()
    np.testing.assert_array_equal(run.out[1], run.x[1])


# ---- noise --------------------------------------------------------------------------------------------------


@triton.jit
def words_kernel(out, seeds, first, row, index, BLOCK: tl.constexpr):
    lane = tl.arange(0, BLOCK)
    seed = tl.load(seeds).to(tl.uint64, bitcast=True)
    counter = first.to(tl.uint32) + lane.to(tl.uint32)
    w0, w1, w2, w3 = triton_noise.words(seed, counter, row.to(tl.uint32), index.to(tl.uint32), 3)
    tl.store(out + 4 * lane, w0.to(tl.int32, bitcast=True))
    tl.store(out + 4 * lane + 1, w1.to(tl.int32, bitcast=True))
    tl.store(out + 4 * lane + 2, w2.to(tl.int32, bitcast=True))
    tl.store(out + 4 * lane + 3, w3.to(tl.int32, bitcast=True))


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**64 - 1, 0x299F31D0A4093822])
def test_words_are_those_of_the_paper(seed):
    first, row, index = 2**32 - 20, 2**31 + 7, 2**32 - 1  # the counter's word wraps
    out = torch.empty(128, 4, dtype=torch.int32)
    words_kernel[(1,)](out, host._seeds([seed], out), first, row, index, BLOCK=128)
    counters = np.empty((128, 4), np.uint32)
    counters[:, 0] = (first + np.arange(128)) % 2**32
    counters[:, 1:] = row, index, 3
    np.testing.assert_array_equal(out.numpy().view(np.uint32), reference.philox(seed, counters))


@pytest.mark.parametrize("offset", [0, 1, 6])
def test_normals_have_the_bits_of_the_cpu(offset, monkeypatch):
    if INTERPRETED:
        monkeypatch.setattr(host, "BLOCK", 1 << 17)  # the interpreter's cost is per program
    z, same = torch.empty(2, 200_003, device=DEVICE), np.empty((2, 200_003), np.float32)
    where = {"row": 3, "stream": 1, "scale": 1.5, "element_offset": offset}
    seeds, indices = np.array([5, 2**63 + 1], np.uint64), np.array([1, 2**32 - 1], np.uint32)
    KERNEL.normals(z, seeds=seeds, indices=indices, **where)
    get_kernel("scalar").normals(same, seeds=seeds, indices=indices, **where)
    z = z.cpu()
    np.testing.assert_array_equal(z.numpy().view(np.uint32), same.view(np.uint32))
    oracle = 1.5 * reference.normals(200_003, seed=5, index=1, row=3, stream=1, element_offset=offset)
    np.testing.assert_allclose(z[0], oracle, atol=3e-5)


# ---- df.step, as it runs on a device -----------------------------------------------------------------------


def _device_step(x, m, row, **given):
    everything = dict.fromkeys(("registers", "index", "out", "variance", "known", "mask")) | {"seed": 0, "element_offset": 0}
    number = given.pop("step", 0)
    buffers, result = step_module.bind_arguments(DeviceArrays(x, "x"), x, m, row, **everything | given)
    step_module.launch_once(KERNEL, row, number, buffers)
    return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_single_step_has_the_bits_of_the_cpu(dtype):
    rng = np.random.default_rng(0)
    x, m, v, y, mask = (torch.from_numpy(rng.standard_normal((2, 3, 11)).astype(np.float32)) for _ in range(5))
    x, m, v = x.to(dtype), m.to(dtype), v.to(dtype)
    registers = torch.from_numpy(rng.standard_normal((2, 2, 3, 11)).astype(np.float32))
    for row, given in (
        (ROWS["noise"], {"seed": 3, "step": 4, "index": 5}),
        (ROWS["learned variance"], {"variance": v, "seed": [1, 2]}),
        (Row(**BASE, c=(0.5, 0.1), write=1, e_m=1.0), {"registers": registers}),
        (ROWS["known region"], {"known": y, "mask": mask, "element_offset": 3}),
    ):
        mine = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in given.items()}
        np.testing.assert_array_equal(_bits(_device_step(x, m, row, **mine)), _bits(step_on_cpu(x, m, row, **given)))
    np.testing.assert_array_equal(_bits(mine["mask"]), _bits(mask))
    out = x.clone()
    assert _device_step(out, m, ROWS["noise"], out=out) is out


@pytest.mark.parametrize(
    ("row", "given", "message"),
    [
        (Row(b=1.0), {"m": np.zeros((2, 8), np.float32)}, "give a tensor"),
        (Row(b=1.0), {"m": torch.zeros(2, 8, device="meta")}, "on meta"),
        (Row(b=1.0), {"m": torch.zeros(2, 9)}, "shape"),
        (Row(b=1.0), {"m": torch.zeros(2, 8, dtype=torch.float64)}, "float64"),
        (Row(b=1.0), {"m": torch.zeros(8, 2).T}, "contiguous"),
        (Row(b=1.0), {"m": torch.zeros(2, 8, requires_grad=True)}, "detach"),
        (Row(g=(1.0, 1.0), b=1.0), {}, "reads 2 model outputs"),
        (Row(a=1.0, c=(1.0,)), {}, "registers"),
        (Row(a=1.0, c=(1.0,)), {"registers": torch.zeros(1, 2, 9)}, "registers"),
        (Row(a=1.0, write=9, e_x=1.0), {"registers": torch.zeros(10, 2, 8)}, "register 9"),
        (Row(a=1.0, log_s=(0.0, 1.0)), {}, "variance"),
        (Row(a=1.0, known_y=1.0), {"mask": torch.zeros(2, 8)}, "known"),
        (Row(a=1.0), {"element_offset": -1}, "element_offset"),
        (Row(a=1.0), {"seed": -1}, "seed"),
    ],
)
def test_a_single_step_refuses_invalid_arguments(row, given, message):
    m = given.get("m", torch.zeros(2, 8))
    with pytest.raises(DiffuseFastError, match=message):
        _device_step(torch.zeros(2, 8), m, row, **{k: v for k, v in given.items() if k != "m"})


def test_a_single_step_refuses_a_target_that_overlaps_and_an_output_that_is_not_finite():
    memory = torch.zeros(3, 8)
    with pytest.raises(ArgumentError, match="overlaps"):
        _device_step(memory[:2], torch.zeros(2, 8), Row(a=1.0), out=memory[1:])
    with pytest.raises(ArgumentError, match="overlaps"):
        KERNEL.bind([Row(a=1.0)], x=memory[:2], out=memory[1:], outputs=[], registers=None, seeds=[0, 0], indices=[0, 1])
    with pytest.raises(NonFiniteError) as caught:
        _device_step(torch.zeros(2, 8), torch.tensor([[0.0] * 8, [np.nan] * 8]), Row(b=1.0), step=5)
    assert (caught.value.row, caught.value.samples) == (5, (1,))
