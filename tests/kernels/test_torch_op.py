"""The step as an operator of torch: it computes what ``df.step`` does, keeps torch's rules, and is not split when compiled."""

from __future__ import annotations

import numpy as np
import pytest

import diffuse_fast as df

torch = pytest.importorskip("torch")

from diffuse_fast.kernels.torch_op import rows_tensor, step  # noqa: E402  (needs torch)

SHAPE = (2, 3, 5)


def plan(solver, steps=6, **options):
    return df.plan(df.Schedule.linear(), solver, steps, prediction_type="epsilon", **options)


def inputs(dtype=torch.float32, outputs=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, *m = (torch.randn(SHAPE, generator=generator).to(dtype) for _ in range(1 + outputs))
    return x, m


KEYS = torch.tensor([3, -1]), torch.tensor([0, 4])  # -1: the bits of the seed 2**64 - 1
PLAIN_KEYS = {"seed": [3, 2**64 - 1], "index": [0, 4]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
def test_bits_are_those_of_the_eager_step(solver, dtype):
    chosen = plan(solver, clip=(-1, 1))
    x, m = inputs(dtype)
    for i in (0, 3):
        expected = df.step(x, m[0], chosen.rows[i], step=i, **PLAIN_KEYS)
        got = step(x, m, rows_tensor(chosen.rows), i, *KEYS)
        assert got.dtype == dtype
        assert torch.equal(got, expected)


def test_guidance_and_registers():
    chosen = plan("dpmpp_2m").with_guidance(2.0)
    x, m = inputs(outputs=2)
    mine, theirs = torch.zeros(chosen.registers, *SHAPE), torch.zeros(chosen.registers, *SHAPE)
    rows = rows_tensor(chosen.rows)
    for i, row in enumerate(chosen.rows):
        expected = df.step(x, m, row, registers=theirs, step=i, **PLAIN_KEYS)
        assert torch.equal(step(x, m, rows, i, *KEYS, mine), expected)
        assert torch.equal(mine, theirs)
        x = expected


@pytest.mark.parametrize("solver", ["ddpm", "dpmpp_2m"])
def test_it_passes_opcheck(solver):
    chosen = plan(solver)
    x, m = inputs()
    registers = torch.zeros(chosen.registers, *SHAPE) if chosen.registers else None
    torch.library.opcheck(step, (x, m, rows_tensor(chosen.rows), 2, *KEYS, registers))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_loop_has_no_graph_break(backend):
    chosen = plan("dpmpp_2m", 5)
    rows, x = rows_tensor(chosen.rows), inputs()[0]

    def loop(x):
        registers = torch.zeros(chosen.registers, *SHAPE)
        for i in range(len(chosen.rows)):
            x = step(x, [torch.tanh(x)], rows, i, *KEYS, registers)
        return x

    torch._dynamo.reset()
    graphs = []

    def counting(module, example):
        graphs.append(module)
        return torch._dynamo.lookup_backend(backend)(module, example)

    compiled = torch.compile(loop, fullgraph=True, backend=counting)
    assert torch.equal(compiled(x), loop(x))
    assert len(graphs) == 1
    assert sum("diffuse_fast" in str(node.target) for node in graphs[0].graph.nodes) == len(chosen.rows)


def test_it_has_no_gradient():
    x, m = inputs()
    out = step(x.requires_grad_(), m, rows_tensor(plan("ddim").rows), 0, *KEYS)
    with pytest.raises(RuntimeError, match="autograd"):
        out.sum().backward()
    assert np.isfinite(out.detach().numpy()).all()


def test_accesses_outside_the_tensors_are_refused():
    x, m = inputs()
    rows = rows_tensor(plan("dpmpp_2m").rows)
    registers = torch.zeros(2, *SHAPE)
    good = {"x": x, "outputs": m, "rows": rows, "row": 0, "seeds": KEYS[0], "indices": KEYS[1], "registers": registers}
    step(**good)
    for name, value in (
        ("row", -1),
        ("row", len(rows)),
        ("rows", rows[:, :-1]),
        ("rows", rows.to(torch.int8)),
        ("outputs", [m[0][:, :2]]),
        ("seeds", KEYS[0][:1]),
        ("seeds", KEYS[0].to(torch.int32)),
        ("indices", KEYS[1][:1]),
        ("registers", registers[..., :4]),
        ("registers", registers.double()),
        ("registers", torch.zeros(4, *SHAPE)[::2]),
    ):
        with pytest.raises(df.DiffuseFastError, match=name.rstrip("s")):
            step(**{**good, name: value})
