"""Export: the file computes what the module computes at any batch, carries nothing of the machine that wrote it, and
nothing is left behind when it cannot be written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import types

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, ArgumentTypeError, ExportError, MissingDependencyError, OutputError
from diffuse_fast.onnx.weights import Initializers
from diffuse_fast.program.identity import program_hash
from diffuse_fast.program.lower import lower_model
from diffuse_fast.runtimes import network
from diffuse_fast.runtimes.native import load
from diffuse_fast.runtimes.native.error import inputs_of, measure

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

SCHEDULE = df.Schedule.linear()
SAID = {"shape": (2, 8, 8), "schedule": SCHEDULE, "prediction_type": "epsilon"}
LABEL = {"name": "label", "null": 4, "classes": 4}


class Tiny(torch.nn.Module):
    """What networks of this field are made of, once each: convolution, normalisation, time, class, attention."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.enter = torch.nn.Conv2d(2, 8, 3, padding=1)
        self.label = torch.nn.Embedding(5, 8)
        self.norm = torch.nn.GroupNorm(2, 8)
        self.qkv = torch.nn.Conv2d(8, 24, 1)
        self.leave = torch.nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, x, t, label):
        frequencies = torch.exp(-torch.arange(8, device=x.device) / 2)
        h = self.enter(x) + (torch.sin(t[:, None] * frequencies) + self.label(label))[:, :, None, None]
        q, k, v = self.qkv(torch.nn.functional.silu(self.norm(h))).flatten(2).transpose(1, 2).unsqueeze(1).chunk(3, -1)
        h = h + torch.nn.functional.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2).unflatten(2, x.shape[2:])
        return self.leave(h)


class Affine(torch.nn.Module):
    """The cheapest thing that export takes: x·w + t/1000."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.arange(2.0)[:, None, None] + 1)

    def forward(self, x, t):
        return x * self.w + t[:, None, None, None] / 1000


def both(module, model, batch, t, seed=1, **cond):
    """Outputs of the module and of its file on the same noise."""
    x = np.random.default_rng(seed).standard_normal((batch, *model.shape)).astype(np.float32)
    call = network(model, "onnx", threads=1).bind(batch, model.shape, cond)
    call.x[...] = x
    time = torch.full((batch,), t, dtype=getattr(torch, model.time.dtype))
    with torch.no_grad():
        expected = module(torch.from_numpy(x), time, **{k: torch.from_numpy(v) for k, v in cond.items()})
    return getattr(expected, "sample", expected).numpy(), call(float(t))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A module, its file, and the folder, which holds nothing else."""
    folder = tmp_path_factory.mktemp("exported")
    module = Tiny().eval()
    model = df.export(
        module, folder / "tiny.onnx", **SAID, conditioning=[LABEL], clip=(-1, 1), license="MIT", training={"seed": 0, "loss": [0.5]}
    )
    return module, model, folder


def test_the_document_says_what_was_said(tiny):
    _, model, folder = tiny
    assert model.path == folder.resolve() / "tiny.onnx" and os.listdir(folder) == ["tiny.onnx"]
    again = df.load(model.path)
    assert again.to_json() == model.to_json()
    assert (model.name, model.schedule, model.prediction_type, model.shape) == ("tiny", SCHEDULE, "epsilon", (2, 8, 8))
    assert (model.clip, model.value_range, model.license) == ((-1.0, 1.0), (-1.0, 1.0), "MIT")
    assert model.training == {"seed": 0, "loss": [0.5]} and model.producer == f"diffuse_fast {df.__version__}"
    assert (model.conditioning[0].name, model.conditioning[0].null, model.conditioning[0].dtype) == ("label", 4, "int64")
    assert model.opset == 23


def test_it_measures_the_native_runtime(tiny):
    _, model, _ = tiny
    assert model.native.program == program_hash(lower_model(model)) and model.native.reference == "float64"
    assert model.native.times == (0.0, 249.0, 499.0, 749.0, 999.0)
    for errors in model.native.errors.values():
        assert 0 < max(errors) < 1e-5
    again = measure(lower_model(model), model.path, inputs_of(model, lower_model(model)))
    assert again == model.native


class Determinant(Affine):
    def forward(self, x, t):
        return super().forward(x, t) + torch.linalg.det(x)[..., None, None]


def test_a_network_that_the_native_runtime_does_not_run(tmp_path, caplog):
    with caplog.at_level("INFO", "diffuse_fast"):
        model = df.export(Determinant().eval(), tmp_path / "det.onnx", **SAID)
    assert model.native is None and model.to_json()["version"] == 1
    assert "det: the native runtime" in caplog.text and "Det" in caplog.text


def test_a_fault_of_the_native_runtime_is_not_shipped(tmp_path, monkeypatch):
    """Weights that the native runtime reads wrongly make the comparison fail."""
    monkeypatch.setattr(
        "diffuse_fast.runtimes.native.runtime.load", lambda program, path, *rest: load(program, _doubled(path, program), *rest)
    )
    with pytest.raises(ExportError, match=r"the native runtime in float32 differs from the module by .*please report"):
        df.export(Affine().eval(), tmp_path / "affine.onnx", **SAID)
    assert os.listdir(tmp_path) == []


def _doubled(path, program):
    sizes = {b.initializer: b.size for b in program.buffers if b.initializer is not None}
    with Initializers(path, sizes) as initializers:
        return {name: 2 * initializers.read(name) for name in sizes}


@pytest.mark.parametrize("batch", [1, 2, 7, 33])  # none but 1 is a size that export compared at
def test_it_agrees_at_other_batch_sizes(tiny, batch):
    module, model, _ = tiny
    label = np.arange(batch) % 5
    for t in (0, 421, 999):
        expected, got = both(module, model, batch, t, label=label)
        # Sums of at most 72 products in float32, in another order: 72·2^-24 of the scale, through four layers.
        np.testing.assert_allclose(got, expected, atol=4 * 72 * 2**-24 * np.abs(expected).max(), rtol=0)


def test_attention_and_normalisation_are_single_operators_at_opset_23(tiny):
    operators = [n.op_type for n in onnx.load(tiny[1].path).graph.node]
    assert operators.count("GroupNormalization") == 1 and operators.count("Attention") == 1


def test_the_file_carries_no_trace_of_the_machine(tiny):
    data = tiny[1].path.read_bytes()
    traces = [os.getcwd(), __file__, os.path.dirname(torch.__file__), sys.prefix, str(tiny[2]),
              "site-packages", ".py", "Traceback", "torch", "forward(", "/tmp", "stack_trace"]  # fmt: skip
    for trace in traces:
        assert trace.encode() not in data, trace
    proto = onnx.load(tiny[1].path)
    assert [p.key for p in proto.metadata_props] == ["diffuse_fast"]
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.initializer):
        assert not part.doc_string
        assert part is proto or not part.metadata_props


@pytest.fixture(scope="module")
def affine(tmp_path_factory):
    """The file of the cheapest network."""
    return df.export(Affine().eval(), tmp_path_factory.mktemp("affine") / "m.onnx", **SAID, training={"b": 1, "a": 2})


def test_the_same_module_gives_the_same_bytes_and_prints_nothing(affine, tmp_path, capfd, recwarn):
    again = df.export(Affine().eval(), tmp_path / "m.onnx", **SAID, training={"b": 1, "a": 2})
    assert again.path.read_bytes() == affine.path.read_bytes()
    assert capfd.readouterr() == ("", "") and not recwarn.list


@pytest.mark.slow
def test_the_same_module_gives_the_same_bytes_in_another_process(tmp_path):
    code = textwrap.dedent("""
        import sys, torch, diffuse_fast as df
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.GroupNorm(2, 8), torch.nn.Conv2d(8, 1, 1))
        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.net = net
            def forward(self, x, t):
                return self.net(x) + torch.sin(t.float())[:, None, None, None]
        df.export(Net().eval(), sys.argv[1], shape=(1, 8, 8), schedule=df.Schedule.cosine(), prediction_type="epsilon", name="n")
    """)
    paths = [tmp_path / f"{i}.onnx" for i in range(2)]
    for i, path in enumerate(paths):
        environment = {**os.environ, "PYTHONHASHSEED": str(i + 1)}
        subprocess.run([sys.executable, "-c", code, path], check=True, env=environment, capture_output=True)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_opset_21_on_request(tmp_path):
    module = Tiny().eval()
    model = df.export(module, tmp_path / "m.onnx", **SAID, conditioning=[LABEL], opset=21)
    assert model.opset == 21
    expected, got = both(module, model, 5, 421, label=np.arange(5))
    np.testing.assert_allclose(got, expected, atol=4 * 72 * 2**-24 * np.abs(expected).max(), rtol=0)


def test_opset_21_where_23_fails(tmp_path, monkeypatch):
    convert = torch.onnx.export

    def only_21(*args, opset_version, **options):
        if opset_version > 21:
            raise RuntimeError("no such operator at 23")
        return convert(*args, opset_version=opset_version, **options)

    monkeypatch.setattr(torch.onnx, "export", only_21)
    assert df.export(Affine().eval(), tmp_path / "m.onnx", **SAID).opset == 21
    with pytest.raises(ExportError, match="no such operator"):
        df.export(Affine().eval(), tmp_path / "n.onnx", **SAID, opset=23)
    assert os.listdir(tmp_path) == ["m.onnx"]


def test_other_conventions_and_a_learned_variance(tmp_path):
    class Flow(torch.nn.Module):
        def forward(self, x, t, mask, text):
            y = x * t[:, None, None, None] + text.mean(dim=(1, 2))[:, None, None, None]
            return torch.cat([y, torch.where(mask[:, None, None, None], y, -y)], 1)

    conditioning = [{"name": "mask", "dtype": "bool"}, {"name": "text", "dtype": "float32", "shape": [7, 4], "null": 0.0}]
    module = Flow().eval()
    model = df.export(
        module,
        tmp_path / "m.onnx",
        shape=(3, 4, 4),
        schedule=df.Schedule.flow(),
        prediction_type="flow",
        convention="continuous",
        variance="learned_range",
        conditioning=conditioning,
        value_range=None,
    )
    assert model.output_shape == (6, 4, 4) and model.time.dtype == "float32" and model.value_range is None
    text = np.random.default_rng(0).standard_normal((3, 7, 4)).astype(np.float32)
    expected, got = both(module, model, 3, 0.37, mask=np.array([True, False, True]), text=text)
    np.testing.assert_allclose(got, expected, atol=1e-6)


class Returns(torch.nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.layer, self.wrap = torch.nn.Conv2d(1, 1, 1), wrap

    def forward(self, x, t):
        return self.wrap(self.layer(x))


@pytest.mark.parametrize(
    ("wrap", "named"),
    [
        (lambda y: (y,), "a tuple"), (lambda y: [y, y], "a list"), (lambda y: {"sample": y}, "a dict"),
        (lambda y: None, "a NoneType"), (lambda y: types.SimpleNamespace(sample=(y,)), "a SimpleNamespace"),
    ],
)  # fmt: skip
def test_a_module_that_returns_no_tensor_is_refused(tmp_path, wrap, named):
    said = {"shape": (1, 4, 4), "schedule": df.Schedule.linear(), "prediction_type": "epsilon"}
    with pytest.raises(ExportError, match=rf"^the module returns {named}; it must return a tensor, or an object .* \.sample"):
        df.export(Returns(wrap).eval(), tmp_path / "m.onnx", **said)
    assert os.listdir(tmp_path) == []


# ---- external data ------------------------------------------------------------------------------


def test_large_weights_go_beside_the_file(tmp_path):
    torch.manual_seed(0)

    class Wide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convolutions = torch.nn.Sequential(torch.nn.Conv2d(2, 64, 3, padding=1), torch.nn.Conv2d(64, 2, 3, padding=1))

        def forward(self, x, t):
            return self.convolutions(x) + t[:, None, None, None] / 1000

    module = Wide().eval()
    path = tmp_path / "m.onnx"
    model = df.export(module, path, **SAID, max_single_file=1000)
    assert sorted(os.listdir(tmp_path)) == ["m.onnx", "m.onnx.data"]
    assert model.external == (tmp_path.resolve() / "m.onnx.data",)
    assert path.stat().st_size < 6000 < (tmp_path / "m.onnx.data").stat().st_size
    expected, got = both(module, model, 2, 421)
    np.testing.assert_allclose(got, expected, atol=2 * 576 * 2**-24 * np.abs(expected).max(), rtol=0)
    # A small one in its place leaves no stale weights.
    assert df.export(module, path, **SAID).external == ()
    assert os.listdir(tmp_path) == ["m.onnx"]


# ---- diffusers ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unet():
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        num_class_embeds=4,
    ).eval()


def test_a_diffusers_network(unet, tmp_path):
    model = df.export(
        unet,
        tmp_path / "unet.onnx",
        shape=(1, 8, 8),
        schedule=SCHEDULE,
        prediction_type="epsilon",
        conditioning=[{"name": "class_labels", "classes": 4}],
    )
    labels = np.arange(5) % 4
    expected, got = both(unet, model, 5, 700, class_labels=labels)
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)
    # And the module itself, through the other runtime.
    x = np.random.default_rng(1).standard_normal((5, 1, 8, 8)).astype(np.float32)
    call = network(unet).bind(5, (1, 8, 8), {"class_labels": labels})
    call.x[...] = x
    np.testing.assert_allclose(call(700.0), expected, atol=1e-6)


# ---- refusals: nothing is left behind -----------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    yield tmp_path
    assert os.listdir(tmp_path) == []


def test_a_module_that_bakes_its_batch_in(folder):
    class Baked(torch.nn.Module):
        def forward(self, x, t):
            return x + torch.zeros(2, 2, 8, 8)  # the batch of the example that export traces

    with pytest.raises(ExportError):
        df.export(Baked().eval(), folder / "m.onnx", **SAID)


def test_a_module_that_draws_random_numbers(folder):
    class Random(torch.nn.Module):
        def forward(self, x, t):
            return x + torch.randn_like(x)

    # At opset 23 onnxruntime has no such operator, so this also shows that what does not run is tried at 21.
    with pytest.raises(ExportError, match="differs from the module"):
        df.export(Random().eval(), folder / "m.onnx", **SAID)


def test_a_module_that_returns_another_shape_or_nothing_finite(folder):
    class Half(torch.nn.Module):
        def forward(self, x, t):
            return x[:, :1]

    with pytest.raises(ExportError, match="shape"):
        df.export(Half().eval(), folder / "m.onnx", **SAID)

    class Nan(torch.nn.Module):
        def forward(self, x, t):
            return x / 0

    with pytest.raises(ExportError, match="NaN or Inf"):
        df.export(Nan().eval(), folder / "m.onnx", **SAID)


def test_a_module_that_cannot_be_traced_leaves_the_older_file(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"older")

    class Asks(torch.nn.Module):
        def forward(self, x, t):
            return x if x.sum().item() > 0 else -x

    with pytest.raises(ExportError, match="torch cannot export"):
        df.export(Asks().eval(), path, **SAID)
    assert path.read_bytes() == b"older" and os.listdir(tmp_path) == ["m.onnx"]


@pytest.mark.parametrize(
    "change, error, says",
    [
        ({"module": lambda x, t: x}, ArgumentTypeError, "module"),
        ({"module": Affine().train()}, ArgumentError, r"eval\(\)"),
        ({"module": Affine().eval().half()}, ArgumentError, "float16"),
        ({"module": torch.nn.Linear(2, 2, device="meta").eval()}, ArgumentError, "meta"),
        ({"path": 3}, ArgumentTypeError, "path"),
        ({"path": "m.pt"}, ArgumentError, "onnx"),
        ({"shape": (0, 8, 8)}, ArgumentError, "shape"),
        ({"shape": (2.0, 8)}, ArgumentError, "shape"),
        ({"schedule": "linear"}, ArgumentTypeError, "schedule"),
        ({"schedule": SCHEDULE.to_json()}, ArgumentTypeError, "schedule"),
        ({"prediction_type": "eps"}, ArgumentError, "prediction_type"),
        ({"name": ""}, ArgumentError, "name"),
        ({"conditioning": ["label"]}, ArgumentTypeError, "conditioning"),
        ({"conditioning": [{"dtype": "int64"}]}, ArgumentError, "name"),
        ({"conditioning": [{"name": "x"}]}, ArgumentError, "different names"),
        ({"conditioning": [{"name": "label", "null": "none"}]}, ArgumentError, "null"),
        ({"convention": "seconds"}, ArgumentError, "convention"),
        ({"convention": "sigma", "time_dtype": "int64"}, ArgumentError, "time.dtype"),
        ({"clip": (1, -1)}, ArgumentError, "clip"),
        ({"value_range": 1}, ArgumentError, "value_range"),
        ({"variance": "fixed"}, ArgumentError, "variance"),
        ({"training": {"when": object()}}, ArgumentError, "JSON"),
        ({"training": {"loss": float("nan")}}, ArgumentError, "JSON"),
        ({"opset": 17}, ArgumentError, "opset"),
    ],
)
def test_arguments_that_cannot_be_used(folder, change, error, says):
    arguments = {"module": Affine().eval(), "path": folder / "m.onnx", **SAID, **change}
    with pytest.raises(error, match=says):
        df.export(arguments.pop("module"), arguments.pop("path"), **arguments)


def test_a_path_that_cannot_be_written(folder):
    with pytest.raises(OutputError, match="no folder") as caught:
        df.export(Affine().eval(), folder / "none" / "m.onnx", **SAID)
    assert isinstance(caught.value, OSError)
    with pytest.raises(OutputError):
        df.export(Affine().eval(), folder / ("m" * 300 + ".onnx"), **SAID)
    if os.geteuid():  # root may write anywhere
        folder.chmod(0o500)
        try:
            with pytest.raises(OutputError):
                df.export(Affine().eval(), folder / "m.onnx", **SAID)
        finally:
            folder.chmod(0o700)


def test_a_path_that_is_a_folder(tmp_path):
    (tmp_path / "m.onnx").mkdir()
    with pytest.raises(OutputError, match="folder"):
        df.export(Affine().eval(), tmp_path / "m.onnx", **SAID)


def test_a_missing_package_names_its_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingDependencyError, match=r"onnxscript.*pip install .\.\[train\]"):
        df.export(Affine().eval(), folder / "m.onnx", **SAID)


def test_a_disk_that_fills_up(folder, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx, "save_model", full)
    with pytest.raises(OutputError, match="No space left"):
        df.export(Affine().eval(), folder / "m.onnx", **SAID)


def test_the_document_is_plain_json(tiny):
    text = next(p.value for p in onnx.load(tiny[1].path).metadata_props)
    assert json.loads(text) == tiny[1].to_json()


def test_a_model_without_conditioning_cannot_be_guided(affine):
    for scale in (2.0, 0.0, [1.0, 3.0]):
        with pytest.raises(ArgumentError, match="no conditioning to guide by"):
            df.sample(affine, 2, 3, seed=0, guidance_scale=scale)
    with pytest.raises(ArgumentError, match="negative_cond"):
        df.sample(affine, 2, 3, seed=0, negative_cond={"label": 1})
