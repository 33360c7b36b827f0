"""Every family of diffusion network, from torch to ONNX to a program, and the program in the reference against torch."""

# ruff: noqa: E402 (without torch the imports below fail)

from __future__ import annotations

import contextlib
import copy
import functools
import io
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

from diffuse_fast.errors import UnsupportedError
from diffuse_fast.onnx import network as reader
from diffuse_fast.program.encoding import encode
from diffuse_fast.program.finish import finish
from diffuse_fast.program.fuse import fuse
from diffuse_fast.program.lower import lower
from diffuse_fast.program.reference import Reference
from tests.program.families import FAMILIES, OPSETS, installed

BATCHES = (1, 3, 16)
PRIME, OTHER_PRIME = 997, 1009

REFUSED = {
    ("diffusers UNet1D", None): "ScatterND"  # its resampling writes weights into a larger array
}
# torch's older exporter cannot write these.
NOT_TRACED = {"diffusers Flux", "diffusers UNet1D", "DiT qk-norm", "DiT RoPE, RMSNorm"}

# torch's exporter takes 5 to 15 s for a network; its older one, by tracing, takes one. So each test run traces all families and
# exports these.
QUICK = {("df.nn.MLP classes", opset) for opset in OPSETS} | {
    ("df.nn.DiT", 23),
    ("DiT RoPE, RMSNorm", 23),
    ("diffusers PixArt", 18),
}

# The error that is allowed against torch in float32 and in float64. The exporters round the frequencies of the time embedding
# differently from torch; onnxruntime has the same error on these files.
FLOAT32 = 1e-5
FLOAT64 = {"traced": 1e-7, "exported": 2e-6}
FOURIER = {"diffusers UNet2D fourier", "diffusers UNet2D NCSN++ (FIR)"}  # large random frequencies
FOURIER_ERROR = 3e-5

LARGER = {"diffusers UNet2D NCSN++ (FIR)": 2_300_000, "diffusers UNet1D": 5_100_000}  # fixed to 32 channels and more


def cases(forms):
    """The families in some forms: an opset, or ``traced``. Slow where :data:`QUICK` does not have them."""
    return [
        pytest.param(
            name, form, id=f"{name}-{form}", marks=[pytest.mark.slow] if form != "traced" and (name, form) not in QUICK else []
        )
        for name in FAMILIES
        for form in forms
        if form != "traced" or name not in NOT_TRACED
    ]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """From a family and a form to its file, written once."""
    folder = tmp_path_factory.mktemp("families")

    @functools.cache
    def export(name, form):
        family = FAMILIES[name]
        if not installed(family):
            pytest.skip(f"{', '.join(family.packages)} is not installed.")
        path = folder / f"{len(list(folder.iterdir()))}.onnx"
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return family.export_by_tracing(path) if form == "traced" else family.export(path, form)

    return export


def programs(path, prime=PRIME):
    """The program of a file, as it is lowered and fused."""
    draft = lower(reader.read(path), prime)
    return {"lowered": finish(draft), "fused": finish(fuse(draft))}


def weights_of(path):
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def content(program):
    """All that a program is, to be compared."""
    constants = [b.initializer if b.values is None else b.values.tobytes() for b in program.buffers]
    return [one.name for one in program.inputs], encode(program).tolist(), constants


def structure(one):
    """A program but for the names of initializers and the values of constants, which exporters choose."""
    inputs, words, constants = one
    return inputs, words, [None if constant is None or isinstance(constant, str) else len(constant) for constant in constants]


class Float64(TorchDispatchMode):
    """Compute in float64 what depends on a float64 tensor; what depends on none, such as constants, stays as it is."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if any(isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64 for leaf in tree_leaves((args, kwargs))):
            args, kwargs = tree_map(self.widened, (args, kwargs))
        return function(*args, **kwargs)

    @staticmethod
    def widened(leaf):
        if leaf is torch.float32:
            return torch.float64
        return leaf.double() if isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float32 else leaf


def in_float64(family, inputs):
    """The output of a family's module computed in float64."""
    module = copy.deepcopy(family.module)
    for parameter in module.parameters():
        parameter.data = parameter.data.double()
    x, t, *conditions = inputs
    with Float64():
        return module(x.double(), t.double(), *(c.double() if c.is_floating_point() else c for c in conditions)).numpy()


@pytest.mark.parametrize(("name", "form"), cases(("traced", *OPSETS)))
def test_programs_compute_what_torch_does(files, name, form):
    family, path = FAMILIES[name], files(name, form)
    refusal = REFUSED.get((name, form), REFUSED.get((name, None)))
    if refusal:
        with pytest.raises(UnsupportedError, match=refusal):
            programs(path)
        return
    weights = weights_of(path)
    for fusion, program in programs(path).items():
        reference = Reference(program, weights)
        for batch in BATCHES:
            inputs = family.inputs(batch, batch)
            x, t, *conditions = (one.numpy() for one in inputs)
            ours = reference(x, t, conditions)
            expected, exact = family.module(*inputs).numpy(), in_float64(family, inputs)
            scale = np.abs(expected).max()
            assert ours.shape == expected.shape
            assert scale > 1e-3
            assert np.abs(ours - expected).max() <= (FOURIER_ERROR if name in FOURIER else FLOAT32) * scale, (fusion, batch)
            bound = FLOAT64["traced" if form == "traced" else "exported"]
            assert np.abs(ours - exact).max() <= (FOURIER_ERROR if name in FOURIER else bound) * scale, (fusion, batch)


@pytest.mark.parametrize(("name", "form"), [c for c in cases(("traced",)) if not {c.values, (c.values[0], None)} & REFUSED.keys()])
def test_a_program_depends_on_neither_the_prime_nor_the_weights(files, tmp_path, name, form):
    path = files(name, form)
    programs_of_both = programs(path), programs(path, OTHER_PRIME)
    for fusion in ("lowered", "fused"):
        assert content(programs_of_both[0][fusion]) == content(programs_of_both[1][fusion])

    tuned = onnx.load(path)
    for tensor in tuned.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.size > 64:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array * np.float32(0.7) + np.float32(0.1), tensor.name))
    onnx.save(tuned, tmp_path / "tuned.onnx")
    assert content(programs(tmp_path / "tuned.onnx")["fused"]) == content(programs_of_both[0]["fused"])


AT_ALL_OPSETS = [name for name in FAMILIES if all((name, opset) in QUICK for opset in OPSETS)]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in AT_ALL_OPSETS else [pytest.mark.slow]) for n in FAMILIES if (n, None) not in REFUSED]
)
def test_every_opset_gives_one_program(files, name):
    first, *others = (content(programs(files(name, opset))["fused"]) for opset in OPSETS)
    for opset, other in zip(OPSETS[1:], others, strict=True):
        assert structure(other) == structure(first), opset


@pytest.mark.parametrize("name", [n for n in FAMILIES if (n, None) not in REFUSED])
def test_families_are_small_and_without_plain_parameters(name):
    family = FAMILIES[name]
    if not installed(family):
        pytest.skip(f"{', '.join(family.packages)} is not installed.")
    with FlopCounterMode(display=False) as counter:
        family.module(*family.inputs(1))
    assert counter.get_total_flops() <= 2 * LARGER.get(name, 2_000_000)
    for parameter in family.module.parameters():
        assert not (torch.isin(parameter, torch.tensor([0.0, 1.0]))).any()
