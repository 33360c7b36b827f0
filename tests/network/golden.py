"""Small networks whose float32 results are stored as hashes, with weights and inputs from integer arithmetic alone.

    python -m tests.network.golden      # writes golden.json, after a change of bits that is wanted

A change of bits needs a higher ``diffuse_fast.program.program.VERSION`` and an entry in CHANGELOG.md.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from pathlib import Path

import numpy as np

from diffuse_fast.program.lower import lower_file
from diffuse_fast.program.program import VERSION, Program
from diffuse_fast.runtimes.native import load
from tests.program import models

STORED = Path(__file__).with_name("golden.json")
BATCH = 3


def numbers(name: str, *shape: int, scale: float = 1.0) -> np.ndarray:
    """Numbers between -scale and scale, of a linear congruential generator that is seeded by the name."""
    state = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    out = []
    for _ in range(math.prod(shape)):
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        out.append((state >> 41) / (1 << 22) - 1)
    return (np.array(out, np.float64).reshape(shape) * scale).astype(np.float32)


TIME = (
    "Cast t -> tf; to=1",
    "Unsqueeze tf one -> tu",
    "Mul tu frequencies -> angles",
    "Sin angles -> sines",
    "Cos angles -> cosines",
    "Concat sines cosines -> waves; axis=1",
    "Gemm waves time_w time_b -> embedding; transB=1",
)
TIME_WEIGHTS = {"frequencies": (1, 4), "time_w": (16, 8), "time_b": (16,)}

# Nodes, the shape of x, the shapes of weights, integer constants, conditions.
NETWORKS: dict[str, tuple] = {
    "unet": (
        (
            *TIME,
            "Gather table label -> class",
            "Add embedding class -> both",
            "Sigmoid both -> gate",
            "Mul both gate -> silu",
            "Unsqueeze silu two_three -> shift",
            "Conv x in_w in_b -> h0; pads=[1, 1, 1, 1]",
            "GroupNormalization h0 norm_w norm_b -> n0; num_groups=4; epsilon=1e-5",
            "Sigmoid n0 -> s0",
            "Mul n0 s0 -> a0",
            "Conv a0 mid_w mid_b -> c0; pads=[1, 1, 1, 1]",
            "Add c0 shift -> c1",
            "Add c1 h0 -> h1",
            "Conv h1 deep_w -> h2; group=16; pads=[1, 1, 1, 1]",
            "Conv h2 down_w down_b -> h3; strides=[2, 2]; pads=[1, 1, 1, 1]",
            "Reshape h3 tokens -> r0",
            "Transpose r0 -> r1; perm=[0, 2, 1]",
            "LayerNormalization r1 norm_w norm_b -> r2; axis=-1; epsilon=1e-5",
            "MatMul r2 q_w -> q",
            "MatMul r2 k_w -> k",
            "MatMul r2 v_w -> v",
            "Transpose k -> kt; perm=[0, 2, 1]",
            "MatMul q kt -> scores",
            "Mul scores quarter -> scaled",
            "Softmax scaled -> shares; axis=-1",
            "MatMul shares v -> mixed",
            "Add r1 mixed -> r3",
            "Transpose r3 -> r4; perm=[0, 2, 1]",
            "Reshape r4 image -> h4",
            "ConvTranspose h4 up_w -> h5; strides=[2, 2]; pads=[1, 1, 1, 1]",
            "Concat h5 h1 -> h6; axis=1",
            "Conv h6 out_w out_b -> y; pads=[1, 1, 1, 1]",
        ),
        (3, 8, 8),
        TIME_WEIGHTS
        | {
            "table": (5, 16),
            "in_w": (16, 3, 3, 3),
            "in_b": (16,),
            "norm_w": (16,),
            "norm_b": (16,),
            "mid_w": (16, 16, 3, 3),
            "mid_b": (16,),
            "deep_w": (16, 1, 3, 3),
            "down_w": (16, 16, 3, 3),
            "down_b": (16,),
            "q_w": (16, 16),
            "k_w": (16, 16),
            "v_w": (16, 16),
            "up_w": (16, 16, 4, 4),
            "out_w": (3, 32, 3, 3),
            "out_b": (3,),
        },
        {"one": [1], "two_three": [2, 3], "tokens": [0, 16, 16], "image": [0, 16, 4, 4]},
        {"label": ("int64", ())},
    ),
    "sequence": (
        (
            *TIME,
            "Unsqueeze embedding two -> shift",
            "Conv x first_w first_b -> h0; pads=[4, 4]; dilations=[2]",
            "Add h0 shift -> h1",
            "Softplus h1 -> s1",
            "Tanh s1 -> s2",
            "Mul h1 s2 -> h2",
            "InstanceNormalization h2 norm_w norm_b -> h3; epsilon=1e-5",
            "AveragePool h3 -> h4; kernel_shape=[2]; strides=[2]",
            "Resize h4 _ scales -> h5; mode='linear'",
            "Add h5 h2 -> h6",
            "ReduceMean h6 two -> m; keepdims=1",
            "Mul h6 m -> h7",
            "Transpose h7 -> h8; perm=[0, 2, 1]",
            "MatMul h8 h7 -> products",
            "Tanh products -> shares",
            "MatMul h7 shares -> h9",
            "Mul h9 h9 -> squares",
            "ReduceMean squares one -> mean; keepdims=1",
            "Add mean small -> mean1",
            "Sqrt mean1 -> root",
            "Div h9 root -> h10",
            "Conv h10 last_w -> y; pads=[1, 1]",
        ),
        (6, 16),
        TIME_WEIGHTS | {"first_w": (16, 6, 5), "first_b": (16,), "norm_w": (16,), "norm_b": (16,), "last_w": (6, 16, 3)},
        {"one": [1], "two": [2]},
        {},
    ),
    "stages": (
        (
            *TIME,
            "Unsqueeze embedding two_three -> shift",
            "Conv x in_w -> h0; pads=[0, 1, 2, 1]",
            "Add h0 shift -> h1",
            "Erf h1 -> u0",
            "Exp u0 -> u1",
            "Sqrt u1 -> u2",
            "Elu h1 -> u3; alpha=0.5",
            "LeakyRelu u3 -> u4; alpha=0.2",
            "Mul u4 u2 -> h2",
            "MaxPool h2 -> p0; kernel_shape=[3, 3]; strides=[1, 1]; pads=[1, 1, 1, 1]",
            "Resize p0 _ scales -> p1; mode='linear'",
            "Conv p1 big_w big_b -> p2; pads=[1, 1, 1, 1]",
            "LpNormalization p2 -> p3; axis=1; p=2",
            "Gelu p3 -> p4; approximate='tanh'",
            "HardSigmoid p4 -> p5; alpha=0.16666667; beta=0.5",
            "Softmax p5 -> p6; axis=1",
            "ReduceMax p6 one -> top; keepdims=1",
            "Div p6 top -> p7",
            "Conv p7 last_w -> y",
        ),
        (4, 5, 7),
        TIME_WEIGHTS | {"in_w": (16, 4, 3, 3), "big_w": (24, 16, 3, 3), "big_b": (24,), "last_w": (4, 24, 1, 1)},
        {"one": [1], "two_three": [2, 3]},
        {},
    ),
}
FLOATS: dict[str, dict] = {
    "unet": {"quarter": 0.25},
    "sequence": {"scales": [1, 1, 2], "small": 1e-5},
    "stages": {"scales": [1, 1, 2, 1.5]},
}


def network(name: str, folder: Path) -> tuple[Program, Path]:
    """The program of a network, and its file."""
    nodes, x, shapes, integers, conditions = NETWORKS[name]
    weights = {key: numbers(f"{name} {key}", *shape, scale=math.prod(shape[1:]) ** -0.5) for key, shape in shapes.items()}
    weights |= {key: np.array(value, np.int64) for key, value in integers.items()}
    weights |= {key: np.array(value, np.float32) for key, value in FLOATS[name].items()}
    path = models.write(folder / f"{name}.onnx", models.steps(*nodes), x, weights, conditions)
    return lower_file(path), path


def inputs(program: Program) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Three samples, their times and their conditions."""
    x = numbers("x", BATCH, *program.inputs[0].shape, scale=2.0)
    return x, np.array([3, 400, 999], np.float32), [np.arange(BATCH, dtype=np.float32)] * len(program.inputs[2:])


def result(program: Program, path: Path, isa: str) -> np.ndarray:
    """A network's result on the inputs, (3, elements of one)."""
    core = load(program, path, isa)
    x, t, conditions = inputs(program)
    y = np.empty((BATCH, core.output_size), np.float32)
    core.run(x, y, core.prepare_times(t), core.prepare_conditions(conditions, BATCH))
    return y


def digest(y: np.ndarray) -> str:
    """The SHA-256 of a result."""
    return hashlib.sha256(y.astype("<f4").tobytes()).hexdigest()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = {name: digest(result(*network(name, Path(folder)), "scalar")) for name in NETWORKS}
    STORED.write_text(json.dumps({"program_version": VERSION, "networks": found}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
