"""Compiles the kernels as a launch would, for GPUs that this machine does not have, and examines the result.

A bound step gets kernels that only record their launches. From the recorded arguments comes the signature that triton would
specialise: pointers and sizes divisible by 16, the number 1 and None as constants.
"""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from diffuse_fast.kernels import triton_forward, triton_reduce, triton_step
from diffuse_fast.kernels.rows import pack
from diffuse_fast.kernels.triton import TritonKernel, TritonStep
from diffuse_fast.kernels.triton_variant import canonicalize, terms_of
from diffuse_fast.plans.plan import Reduction, Row

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
KERNELS = {"reduce": triton_reduce.reduce_kernel, "step": triton_step.step_kernel, "advance": triton_step.advance_kernel,
           "normals": triton_step.normals_kernel, "forward": triton_forward.forward_kernel}  # fmt: skip
POINTERS = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.int32: "*i32", torch.int64: "*i64"}
OPTIONS = ("num_warps", "enable_fp_fusion", "enable_reflect_ftz")

CLIP = {"p": 1.5, "q": -1.1, "lo": -1.0, "hi": 1.0}
DDIM, DDPM, LAST = Row(**CLIP, b=0.4, d=0.8), Row(**CLIP, a=0.4, d=0.8, s=0.3), Row(**CLIP, d=1.0)
MULTISTEP = Row(**CLIP, a=0.4, d=0.8, c=(0.5,), write=0, e_0=1.0)
# Every term of the contract, in rows that lack some: a batch of different samples.
GENERAL = [
    Row(g=(2.0, -0.5, -0.5), **CLIP, r=0.7, a=0.1, b=0.2, d=0.3, c=(0.1,) * 8, s=0.3, known_y=0.8, known_z=0.6, write=7, e_x=0.1,
        e_m=0.2, e_0=0.3, f=(-0.1,) * 8),
    Row(a=1.0, log_s=(-1.0, 0.7)),
    Row(calls_network=False),
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Case:
    """A table and buffers; ``launches`` names the kernels that are compiled."""

    rows: tuple[Row, ...]
    state: torch.dtype = torch.float32
    output: torch.dtype = torch.float32
    elements: int = 4096
    masked: bool = False
    variance: bool = False
    launches: tuple[str, ...] = ("step",)


def _reduced(kind: str, values: tuple[float, ...], **row) -> Case:
    return Case((Row(**row, reduce=Reduction(kind, values)),), launches=("reduce", "step"))


CASES = {
    "general": Case(tuple(GENERAL), masked=True, variance=True),
    "ddim": Case((DDIM,)),
    "ddpm": Case((DDPM,)),
    "ddpm with its last row": Case((DDPM, LAST)),
    "multistep": Case((MULTISTEP,)),
    "guided ddim": Case((Row(g=(3.0, -2.0), **CLIP, b=0.4, d=0.8),)),
    "inpainting ddpm": Case((Row(**CLIP, a=0.4, d=0.8, s=0.3, known_y=0.8, known_z=0.6),), masked=True),
    "learned variance": Case((Row(**CLIP, a=0.4, d=0.8, log_s=(-1.0, 0.7)),), variance=True),
    "ddpm, float16": Case((DDPM,), torch.float16, torch.float16),
    "ddpm, bfloat16": Case((DDPM,), torch.bfloat16, torch.bfloat16),
    "ddpm, bfloat16 outputs": Case((DDPM,), torch.float32, torch.bfloat16),
    "general, bfloat16": Case(tuple(GENERAL), torch.bfloat16, torch.bfloat16, masked=True, variance=True),
    "ddpm, a last piece": Case((DDPM,), elements=3 * 1024 + 16),
    "ddpm, small samples": Case((DDPM,), elements=64),
    "ddpm, odd size": Case((DDPM,), elements=3 * 1024 + 1),
    "dynamic threshold": _reduced("dynamic_threshold", (0.9, 4.0), **CLIP, b=0.4, d=0.8),
    "guidance rescale": _reduced("guidance_rescale", (0.7,), g=(3.0, -2.0), a=0.9, b=-0.3),
    "langevin": _reduced("langevin", (0.16, -1.3), a=1.0),
    "langevin with given noise": _reduced("langevin_given", (0.16, -1.3), a=1.0, c=(0.3, 1.0)),
    "advance": Case((DDIM,), launches=("advance",)),
    "normals": Case((), launches=("normals",)),
    "forward": Case((), launches=("forward",)),
}  # fmt: skip


class Recorder:
    """Replaces a jitted kernel and records the arguments of its launches."""

    def __init__(self, name: str, launches: dict):
        self._name, self._launches = name, launches

    def __getitem__(self, grid):
        def launch(*args, **kwargs):
            self._launches[self._name] = (args, kwargs)

        return launch


def launches_of(case: Case) -> dict:
    """kernel -> (arguments, keyword arguments) of one launch of the case, as the host code passes them."""
    launches: dict = {}
    kernels = SimpleNamespace(**{f"{name}_kernel": Recorder(name, launches) for name in KERNELS})
    samples, elements = 2, case.elements

    def tensor(*size, dtype=torch.float32):
        return torch.zeros(size, dtype=dtype)

    if case.rows:
        channels = 2 if case.variance else 1
        step = TritonStep(
            kernels,
            kernels,
            case.rows,
            x=tensor(samples, elements, dtype=case.state),
            out=tensor(samples, elements, dtype=case.state),
            outputs=[tensor(samples, channels * elements, dtype=case.output) for _ in range(3)],
            registers=tensor(8, samples, elements),
            seeds=[1] * samples,
            indices=[0] * samples,
            y=tensor(samples, elements) if case.masked else None,
            mask=tensor(samples, elements) if case.masked else None,
            variance_offset=elements if case.variance else -1,
            times=np.zeros(len(case.rows)),
            t=tensor(samples),
        )
        step.launch()
    else:
        kernel = TritonKernel()
        kernel._step = kernels
        kernel._forward = SimpleNamespace(WORDS=triton_forward.WORDS, **vars(kernels))
        kernel.forward(
            *(tensor(samples, elements) for _ in range(3)),
            coefficients=np.ones((4, samples), np.float32),
            indices=np.zeros(samples, np.uint32),
            seed=1,
            row=0,
        )
        kernel.normals(tensor(samples, elements), seeds=[1] * samples, indices=[0] * samples, row=0, stream=0)
    return launches


@dataclass(frozen=True)
class Compiled:
    """One kernel for one architecture: its code, and ptxas's figures."""

    ptx: str
    sass: str
    ttgir: str
    registers: int
    stack: int
    local: int

    def count(self, instruction: str) -> int:
        """The number of SASS instructions that start with the text."""
        return len(re.findall(rf"^\s+/\*[0-9a-f]{{4,}}\*/\s+(?:@!?U?P\w+ )?{re.escape(instruction)}", self.sass, re.MULTILINE))

    @property
    def instructions(self) -> int:
        """Without the padding behind the last exit."""
        return self.count("") - self.count("NOP")


@functools.cache
def compiled(name: str, kernel: str, capability: int) -> Compiled:
    """The kernel as the case launches it, compiled for ``sm_<capability>``."""
    args, kwargs = launches_of(CASES[name])[kernel]
    function = KERNELS[kernel]
    options = {key: kwargs[key] for key in OPTIONS}
    given = dict(zip(function.arg_names, args, strict=False)) | {k: v for k, v in kwargs.items() if k not in OPTIONS}
    static = {p.name for p in function.params if p.is_constexpr}
    signature, constants, attributes = {}, {}, {}
    for number, argument in enumerate(function.arg_names):
        value = given[argument]
        if argument in static or value is None or (type(value) is int and value == 1):
            signature[argument], constants[argument] = "constexpr", value
            continue
        if isinstance(value, torch.Tensor):
            signature[argument], divisible = POINTERS[value.dtype], value.data_ptr() % 16 == 0
        elif isinstance(value, int):
            signature[argument], divisible = "i32" if -(2**31) <= value < 2**31 else "i64", value % 16 == 0
        else:
            signature[argument], divisible = "fp32", False
        if divisible:
            attributes[(number,)] = [["tt.divisibility", 16]]
    source = ASTSource(function, signature, constants, attributes)
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        usage = _tool("cuobjdump", "--dump-resource-usage", file.name)
        sass = _tool("nvdisasm", "-c", file.name)
    figures = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    return Compiled(built.asm["ptx"], sass, built.asm["ttgir"], figures["REG"], figures["STACK"], figures["LOCAL"])


def figures(name: str, kernel: str, capability: int) -> dict[str, int]:
    """The figures in compiled.json."""
    built = compiled(name, kernel, capability)
    return {"registers": built.registers, "instructions": built.instructions}


def wide_accesses(case: Case) -> tuple[int, int]:
    """The numbers of 128-bit loads and stores per thread, if every access to a tensor is one. 0 where sizes do not allow them."""
    if case.elements % 16:
        return 0, 0
    block = max(min(case.elements, 1024), 128)
    per_thread = block // (32 * max(1, block // 256))
    has = terms_of(canonicalize(pack(case.rows)), case.masked)

    def vectors(dtype: torch.dtype) -> int:
        return -(-per_thread * dtype.itemsize // 16)

    network = sum(bool(has[f"g{j}"].any()) for j in range(3)) + bool(has["learned_s"].any())
    registers = int((has["c"] | has["f"]).any(axis=0).sum())
    known = case.masked * (1 + bool(has["known_y"].any()))
    state = bool(has["x"].any()) * vectors(case.state)
    loads = state + network * vectors(case.output) + (registers + known) * vectors(torch.float32)
    return loads, vectors(case.state) + bool(has["write"].any()) * vectors(torch.float32)


def _tool(name: str, *arguments: str) -> str:
    return subprocess.run([TOOLS / name, *arguments], capture_output=True, text=True, check=True).stdout
