"""libdiffuse_fast: its samples have the bits of ``df.sample``, and no file makes it crash.

Skipped where the library is not built; `make core` builds it.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import diffuse_fast as df
from tests.compiling.library import PATH, LibraryError
from tests.conftest import DOCUMENT, small_proto

ROOT = Path(__file__).parents[2]
LABELS = [0, 3, 7, 9]


@pytest.fixture(scope="module")
def opened(library, tmp_path_factory):
    """``opened(model, steps, **options)``: a compiled model, opened by the library."""
    folder = tmp_path_factory.mktemp("compiled")

    def open_compiled(model, steps, **options):
        return library.open(df.compile_model(model, folder / "model.dfp", steps, **options))

    return open_compiled


@pytest.mark.parametrize("options", [
    {},
    {"solver": "ddpm"},
    {"solver": "dpmpp_2m", "timestep_spacing": "karras"},
    {"solver": "heun", "s_churn": 5.0, "s_tmax": 50.0},
    {"solver": "unipc", "guidance_scale": 2.5},
    {"solver": "pndm", "clip": False},
    {"guidance_scale": 3.0, "guidance_interval": (0.5, 5.0), "guidance_rescale": 0.7},
    {"guidance_scale": 0.0},
    {"clip": df.DynamicThreshold(0.95, 1.5)},
    {"precision": "float32-fast", "guidance_scale": 2.0, "guidance_rescale": 0.3},
], ids=lambda options: " ".join(options) or "ddim")  # fmt: skip
def test_the_bits_are_those_of_sample(opened, options):
    got = opened("digits", 8, **options).sample(4, 5, {"label": LABELS}, first_index=2)
    expected = df.sample("digits", 4, 8, seed=5, cond={"label": LABELS}, first_index=2, runtime="native", **options)
    assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("family", ["epsilon", "flow"])
def test_every_solver(opened, tmp_path, family):
    pytest.importorskip("onnx")
    document, change = copy.deepcopy(DOCUMENT), {}
    if family == "flow":
        document.update(schedule=df.Schedule.flow().to_json(), prediction_type="flow", clip=None)
        document["time"].update(dtype="float32")
        change = {"t": (1, ["B"])}
    model = tmp_path / "model.onnx"
    model.write_bytes(small_proto(document, **change).SerializeToString())
    solvers = [name for name in df.solvers() if name.startswith("flow_") == (family == "flow")]
    for solver in solvers:
        options = {"solver": solver, "guidance_scale": 2.0}
        got = opened(model, 5, **options).sample(3, 4, {"label": [0, 1, 3]})
        expected = df.sample(model, 3, 5, seed=4, cond={"label": [0, 1, 3]}, runtime="native", **options)
        assert got.tobytes() == expected.tobytes(), solver
    assert solvers


def test_one_call_as_several(opened):
    model = opened("digits", 6, solver="ddpm", guidance_scale=2.0)
    seeds = [3, 2**64 - 1, 5]
    expected = df.sample("digits", 3, 6, solver="ddpm", guidance_scale=2.0, seed=seeds, cond={"label": 4}, runtime="native")
    np.testing.assert_array_equal(model.sample(3, seeds, {"label": 4}, threads=2), expected)
    np.testing.assert_array_equal([model.sample(1, seed, {"label": [4]})[0] for seed in seeds], expected)
    np.testing.assert_array_equal(model.sample(2, 9), df.sample("digits", 2, 6, solver="ddpm", guidance_scale=2.0, seed=9))
    found, threads = [], []
    for _ in range(4):
        threads.append(threading.Thread(target=lambda: found.append(model.sample(3, seeds, {"label": 4}))))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all((one == expected).all() for one in found)


def test_a_learned_variance(opened, tmp_path):
    onnx = pytest.importorskip("onnx")
    proto = small_proto({**copy.deepcopy(DOCUMENT), "variance": "learned_range"}, output=(1, ["B", 4, 3]))
    proto.graph.node[-1].output[0] = "half"
    proto.graph.node.append(onnx.helper.make_node("Concat", ["half", "scaled"], ["output"], axis=1))
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    for scale in (1.0, 2.0, 0.0):
        options = {"solver": "ddpm", "variance_type": "learned_range", "guidance_scale": scale}
        got = opened(tmp_path / "model.onnx", 5, **options).sample(2, 1, {"label": [1, 2]})
        expected = df.sample(tmp_path / "model.onnx", 2, 5, seed=1, cond={"label": [1, 2]}, runtime="onnx", **options)
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def test_inputs_of_every_kind(opened, tmp_path):
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    document = copy.deepcopy(DOCUMENT)
    document["conditioning"] = [
        {"name": "shift", "dtype": "float32", "shape": [2, 3], "null": 0.25, "classes": None},
        {"name": "sign", "dtype": "bool", "shape": [], "null": 0, "classes": None},
        {"name": "count", "dtype": "int32", "shape": [1], "null": None, "classes": None},
    ]
    nodes = [
        helper.make_node("Cast", ["sign"], ["signs"], to=1),
        helper.make_node("Unsqueeze", ["signs", "axes"], ["wide"]),
        helper.make_node("Cast", ["count"], ["counts"], to=1),
        helper.make_node("Unsqueeze", ["counts", "axis"], ["tall"]),
        helper.make_node("Mul", ["x", "wide"], ["a"]),
        helper.make_node("Add", ["a", "shift"], ["b"]),
        helper.make_node("Div", ["b", "tall"], ["output"]),
    ]
    inputs = {"x": (1, ["B", 2, 3]), "t": (7, ["B"]), "shift": (1, ["B", 2, 3]), "sign": (9, ["B"]), "count": (6, ["B", 1])}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *value) for name, value in inputs.items()],
        [helper.make_tensor_value_info("output", 1, ["B", 2, 3])],
        [onnx.numpy_helper.from_array(np.array(v), n) for n, v in (("axes", [1, 2]), ("axis", [2]))],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    helper.set_model_props(proto, {"diffuse_fast": json.dumps(document)})
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())

    model = opened(tmp_path / "model.onnx", 4)
    found = [(i.name.decode(), i.type, i.elements, i.bytes, i.has_null, i.null_value, i.classes) for i in model.inputs]
    assert found == [("shift", 0, 6, 24, 1, 0.25, -1), ("sign", 3, 1, 1, 1, 0.0, -1), ("count", 2, 1, 4, 0, 0.0, -1)]
    shift = np.random.default_rng(0).normal(size=(3, 2, 3)).astype(np.float32)
    for cond in ({"shift": shift, "sign": [True, False, True], "count": [[2], [3], [-4]]}, {"shift": shift[0], "count": [7]}):
        expected = df.sample(tmp_path / "model.onnx", 3, 4, seed=2, cond=cond, runtime="native")
        np.testing.assert_array_equal(model.sample(3, 2, cond), expected)
    with pytest.raises(LibraryError, match="'count' is missing, and has no null value"):
        model.sample(3, 2)


def test_what_a_model_says(library, opened):
    model = opened("digits", 7, guidance_scale=1.5)
    info = model.info
    assert (info.name, model.shape, info.elements, info.steps, info.guidance_scale) == (b"digits", (1, 8, 8), 64, 7, 1.5)
    assert (info.has_value_range, info.value_low, info.value_high) == (1, -1.0, 1.0)
    assert json.loads(info.about)["license"] == "Apache-2.0"
    (label,) = model.inputs
    assert (label.name, label.rank, label.elements, label.classes, label.null_value) == (b"label", 0, 1, 10, 10.0)
    assert library.c.df_version().decode() == df.__version__
    assert library.c.df_instruction_set().decode() in ("avx512", "avx2", "neon", "scalar")


def test_errors_have_a_status_and_a_message(library, opened, tmp_path):
    model = opened("digits", 3)
    for n, cond, says in (
        (0, {}, "count is below 1"),
        (2, {"colour": 1}, "no conditioning input 'colour'"),
        (2, {"label": [1, 2, 3]}, "has 24 bytes; give 8 for all samples alike, or 16 for 2 samples"),
        (2, {"label": 11}, "label 11; labels are from 0 to 9"),
    ):
        with pytest.raises(LibraryError, match=says) as error:
            model.sample(n, 0, cond)
        assert error.value.status == "bad_argument"
    assert model.sample(1, 0, {"label": 10}).shape == (1, 1, 8, 8)  # the null value is allowed
    for file, status, says in (
        (tmp_path / "missing.dfp", "cannot_read", "missing.dfp' cannot be read: No such file"),
        (tmp_path, "cannot_read", "directory"),
        (df.load("digits").path, "bad_file", "not a compiled model"),
        (b"", "bad_file", "the file has 0 bytes"),
    ):
        with pytest.raises(LibraryError, match=says) as error:
            library.open(file)
        assert error.value.status == status


MUTATE = """
import random, resource, sys, zlib
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.compiling.library import Library, LibraryError

resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
library, valid = Library(), Path(sys.argv[2]).read_bytes()
places = [(0, 144)] + [tuple(int.from_bytes(valid[at + k : at + k + 8], "little") for k in (0, 8)) for at in range(32, 144, 16)]
places = [place for place in places if place[1]]
random.seed(0)
counts = {}  # by status
for _ in range(3000):
    data = bytearray(valid)
    for _ in range(random.randint(1, 3)):
        offset, length = random.choice(places)
        at = min(offset + random.randrange(length), len(data) - 1)
        kind = random.randrange(6)
        if kind == 0:
            del data[at]
        elif kind == 1:
            data.insert(at, random.randrange(256))
        elif kind == 2 and random.random() < 0.3:
            del data[at + 64 :]
        else:
            data[at] = random.randrange(256)
    if len(data) >= 32 and random.random() < 0.9:  # seldom: only the checksum is wrong
        data[16:24] = len(data).to_bytes(8, "little")
        data[28:32] = zlib.crc32(data[32:]).to_bytes(4, "little")
    try:
        model = library.open(bytes(data))
        model.sample(2, 1)
        status = "ok"
    except LibraryError as error:
        status = error.status
        assert str(error)
    counts[status] = counts.get(status, 0) + 1
print(counts)
assert set(counts) <= {"ok", "bad_file", "bad_argument", "not_finite", "failed", "no_memory"}
assert counts["ok"] > 100 and counts["bad_file"] > 1000
"""


def test_mutated_files_do_no_harm(library, small, tmp_path):
    file = df.compile_model(small(), tmp_path / "small.dfp", 3, guidance_scale=2.0)
    done = subprocess.run([sys.executable, "-c", MUTATE, ROOT, file], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- as it is installed ---------------------------------------------------------------------------


def run(*command, **options) -> str:
    env = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}  # cmake and ninja
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=env, timeout=280, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(library, tmp_path_factory):
    """The library, installed into a folder of its own."""
    prefix = tmp_path_factory.mktemp("installed")
    run("cmake", "--install", PATH.parent, "--prefix", prefix)
    return prefix


def test_the_example_draws_the_digits_of_sample(installed, tmp_path):
    build = tmp_path / "build"
    run("cmake", "-S", ROOT / "examples/cpp", "-B", build, f"-DCMAKE_PREFIX_PATH={installed}", "-DCMAKE_BUILD_TYPE=Release")
    run("cmake", "--build", build)
    df.compile_model("digits", tmp_path / "digits.dfp", 20)
    said = run(build / "digits", tmp_path / "digits.dfp", tmp_path / "digits.pgm", 3)
    assert "40 of digits in 20 steps" in said
    x = df.sample("digits", 40, 20, seed=3, cond={"label": [*range(10)] * 4}, runtime="native")
    levels = df.to_uint8(x, df.load("digits")).reshape(4, 10, 8, 8).swapaxes(1, 2).reshape(32, 80)
    expected = b"P5\n480 192\n255\n" + np.kron(levels, np.ones((6, 6), np.uint8)).tobytes()
    assert (tmp_path / "digits.pgm").read_bytes() == expected


def test_what_is_installed(installed):
    files = {str(path.relative_to(installed)) for path in installed.rglob("*") if not path.is_dir()}
    (folder,) = {name.partition("/")[0] for name in files} - {"include"}
    package = f"{folder}/cmake/diffuse_fast"
    libraries = {f"{folder}/libdiffuse_fast.so{end}" for end in ("", ".0", f".{df.__version__}")}
    assert files - libraries >= {"include/diffuse_fast.h", f"{package}/diffuse_fast-config.cmake"}
    assert all(name.startswith(package) for name in files - libraries - {"include/diffuse_fast.h"})
    assert "Python" not in run("ldd", installed / folder / "libdiffuse_fast.so")


def test_the_header_is_plain_c(installed, tmp_path):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    (tmp_path / "main.c").write_text("#include <diffuse_fast.h>\nint main(void) { return df_version() == 0; }\n")
    run(compiler, "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{installed}/include", "main.c",
        cwd=tmp_path)  # fmt: skip


def test_only_the_functions_of_the_header_are_exported(installed):
    if shutil.which("nm") is None:
        pytest.skip("there is no nm")
    said = run("nm", "-D", "--defined-only", next(installed.glob("lib*/libdiffuse_fast.so")))
    header = (installed / "include/diffuse_fast.h").read_text()
    names = {line.split()[-1].partition("@")[0] for line in said.splitlines()}
    assert names and all(name.startswith("df_") and f"{name}(" in header for name in names)
