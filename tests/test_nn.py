"""The networks: their sizes against the papers', what they must not depend on, and that they export whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError
from diffuse_fast.nn.blocks import SelfAttention
from diffuse_fast.nn.embedding import TimeEmbedding, sinusoids


def awake(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """The network with random weights everywhere: as built it is zero at its end, and a test of zeros tests nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return network.eval()


@pytest.fixture(scope="module")
def network():
    return awake(df.nn.UNet(1, channels=16, groups=8, blocks=1, dropout=0.1, num_classes=10))


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(5, 1, 8, 8, generator=generator), torch.tensor([0, 3, 500, 998, 999]), torch.tensor([0, 9, 4, 10, 1]))


ADM = {"head_channels": 64, "scale_shift": True, "resample": "resnet", "num_classes": 1000}
IMPROVED = {"multipliers": (1, 2, 3, 4), "blocks": 3, "attention_levels": (2, 3), "heads": 4, "scale_shift": True}


def size(kind: type, *channels: int, **options) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in kind(*channels, **options).parameters())


def test_parameter_counts_of_the_ddpm_paper():
    # Ho et al. 2020, appendix B: 35.7 M for CIFAR-10 (their code counts 35,746,307), 114 M for 256x256, 256 M at channels 192.
    assert size(df.nn.UNet, 3, multipliers=(1, 2, 2, 2), attention_levels=(1,), dropout=0.1) == 35_746_307
    large = {"multipliers": (1, 1, 2, 2, 4, 4), "attention_levels": (4,)}
    assert round(size(df.nn.UNet, 3, **large) / 1e6) == 114
    assert size(df.nn.UNet, 3, channels=192, **large) / 1e6 == pytest.approx(256, rel=0.005)  # "approximately"


@pytest.mark.parametrize(("channels", "millions"), [(64, 30), (96, 68), (128, 120), (192, 270)])
def test_parameter_counts_of_the_improved_ddpm_paper(channels, millions):
    # Nichol & Dhariwal 2021, section 6, in two digits.
    assert size(df.nn.UNet, 3, 6, channels=channels, **IMPROVED) / 1e6 == pytest.approx(millions, rel=0.011)


@pytest.mark.parametrize(
    ("channels", "multipliers", "blocks", "attention_levels", "count"),
    [
        (192, (1, 2, 3, 4), 3, (1, 2, 3), 296e6),
        (256, (1, 1, 2, 3, 4), 2, (2, 3, 4), 422e6),
        (256, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5), 554e6),
        (256, (0.5, 1, 1, 2, 2, 4, 4), 2, (4, 5, 6), 559e6),
    ],
)
def test_parameter_counts_of_the_adm_paper(channels, multipliers, blocks, attention_levels, count):
    # Dhariwal & Nichol 2021, appendix I: 296, 422, 554 and 559 M for ImageNet at 64, 128, 256 and 512.
    options = {"channels": channels, "multipliers": multipliers, "blocks": blocks, "attention_levels": attention_levels}
    found = size(df.nn.UNet, 3, 6, **options, **ADM)
    # The null class is ours.
    assert round((found - 4 * channels) / 1e6) == count / 1e6


@pytest.mark.parametrize(
    ("width", "depth", "heads", "millions"), [(384, 12, 6, 33), (768, 12, 12, 130), (1024, 24, 16, 458), (1152, 28, 16, 675)]
)
def test_parameter_counts_of_the_dit_paper(width, depth, heads, millions):
    # Peebles & Xie 2023, table 4 (S/2 to XL/2, on 32x32x4 latents with a learned variance).
    found = size(df.nn.DiT, 4, 8, width=width, depth=depth, heads=heads, num_classes=1000)
    assert round(found / 1e6) == millions


SMALL = {
    "unet": (lambda: df.nn.UNet(2, channels=8, groups=4, blocks=1, num_classes=3), (2, 4, 8)),
    "adm": (
        lambda: df.nn.UNet(
            2, channels=8, groups=4, blocks=1, multipliers=(0.5, 1), attention_levels=(1,), head_channels=4, scale_shift=True,
            resample="resnet", num_classes=3,
        ),
        (2, 4, 8),
    ),
    "unet1d": (lambda: df.nn.UNet1D(2, channels=8, groups=4, blocks=1, attention_levels=(1,), num_classes=3), (2, 8)),
    "unet3d": (lambda: df.nn.UNet3D(1, channels=8, groups=4, blocks=1, num_classes=3), (1, 4, 2, 2)),
    "mlp": (lambda: df.nn.MLP(3, width=16, depth=2, num_classes=3), (3,)),
    "dit": (lambda: df.nn.DiT(2, size=4, width=16, depth=2, heads=2, num_classes=3), (2, 4, 4)),
}  # fmt: skip
EXPORTED = ("mlp", "dit", "unet1d")  # in the fast tests; the others share the UNet's code


@pytest.fixture(params=SMALL)
def any_network(request):
    build, shape = SMALL[request.param]
    torch.manual_seed(0)
    return build(), shape


def test_each_starts_at_zero_and_every_weight_is_used(any_network):
    network, shape = any_network
    x, t, label = torch.randn(3, *shape), torch.tensor([0, 5, 999]), torch.tensor([0, 1, 3])
    assert not network(x, t, label).any()
    awake(network)(x, t, label).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_each_depends_on_time_and_class_and_not_on_the_batch(any_network):
    network, shape = any_network
    awake(network)
    x, t, label = torch.randn(3, *shape), torch.tensor([0, 5, 999]), torch.tensor([0, 1, 3])
    with torch.no_grad():
        together = network(x, t, label)
        alone = torch.cat([network(x[i : i + 1], t[i : i + 1], label[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
        assert torch.equal(network(x, t), network(x, t, torch.full((3,), 3)))
        assert (network(x, t + 1, label) - together).abs().max() > 1e-4
        assert (network(x, t, torch.zeros(3, dtype=torch.int64)) - together)[1:].abs().amax(tuple(range(1, x.ndim))).min() > 1e-4
    with pytest.raises(ArgumentError, match="shape"):
        network(torch.zeros(1, *shape[:-1], shape[-1] + 1), t[:1])


@pytest.mark.filterwarnings("ignore")  # the exporter's own deprecations
@pytest.mark.parametrize("name", [name if name in EXPORTED else pytest.param(name, marks=pytest.mark.slow) for name in SMALL])
def test_each_becomes_an_artifact(name, tmp_path):
    pytest.importorskip("onnxruntime")
    build, shape = SMALL[name]
    network = awake(build())
    # Comparing the file with the network at three batch sizes is a part of exporting.
    model = df.export(
        network,
        tmp_path / "m.onnx",
        shape=shape,
        schedule=df.Schedule.linear(),
        prediction_type="epsilon",
        conditioning=[{"name": "label", "null": 3, "classes": 3}],
    )
    assert df.sample(model, 5, 2, seed=0, cond={"label": 1}).shape == (5, *shape)


def test_the_order_of_patches_is_the_order_of_pixels():
    """A DiT whose blocks do nothing maps each patch to itself: a picture must come out as it went in."""
    network = df.nn.DiT(1, size=6, patch=2, width=4, depth=1, heads=1)
    with torch.no_grad():
        network.first.weight.copy_(torch.eye(4).reshape(4, 1, 2, 2))
        network.positions.zero_()
        network.norm = torch.nn.Identity()
        network.last.weight.copy_(torch.eye(4))
    x = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(x, torch.tensor([3, 4])), x)


def test_positions_are_all_different_and_those_of_the_paper():
    from diffuse_fast.nn.dit import sinusoids

    found = sinusoids(16, 5)
    assert len(torch.unique(found, dim=0)) == 25
    row, column = 3, 2
    frequencies = 1 / 10000 ** (np.arange(4) / 4.0)
    parts = [f(place * frequencies) for place in (column, row) for f in (np.sin, np.cos)]
    np.testing.assert_allclose(found[5 * row + column], np.concatenate(parts), atol=1e-6)


def test_fan_average_or_the_default_weights():
    ddpm = df.nn.UNet(64, channels=64, groups=8).first.weight
    adm = df.nn.UNet(64, channels=64, groups=8, scale_shift=True).first.weight
    fan = 64 * 9
    # Uniform to ±√(3/fan) (Glorot), and torch's to ±√(1/fan).
    assert ddpm.abs().max().item() == pytest.approx((3 / fan) ** 0.5, rel=1e-3)
    assert adm.abs().max().item() == pytest.approx((1 / fan) ** 0.5, rel=1e-3)


def test_resampling_inside_a_block_keeps_what_is_constant():
    """Averages of four and nearest neighbours leave a constant picture constant; the shortcut of a new block is exact."""
    from diffuse_fast.nn.blocks import ResidualBlock

    x = torch.arange(8.0).reshape(1, 8, 1, 1).expand(1, 8, 4, 4)
    for resample, sizes in ((-1, (2, 2)), (1, (8, 8))):
        block = ResidualBlock(2, 8, 8, 4, 4, 0.0, resample=resample)
        torch.nn.init.zeros_(block.conv2.weight)
        torch.nn.init.zeros_(block.conv2.bias)
        assert torch.equal(block(x, torch.zeros(1, 4)), x[:, :, :1, :1].expand(1, 8, *sizes))


def test_a_new_network_predicts_zero(inputs):
    x, t, label = inputs
    assert not df.nn.UNet(1, channels=16, groups=8, num_classes=10)(x, t, label).any()


def test_samples_of_a_batch_do_not_know_each_other(network, inputs):
    x, t, label = inputs
    together = network(x, t, label)
    alone = torch.cat([network(x[i : i + 1], t[i : i + 1], label[i : i + 1]) for i in range(len(x))])
    # The same sums in another order: some ulps of activations of size 1 to 10.
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(network(x[order], t[order], label[order]), together[order], rtol=1e-4, atol=1e-4)


def test_no_label_is_the_null_label(network, inputs):
    x, t, _ = inputs
    assert torch.equal(network(x, t), network(x, t, torch.full((5,), 10)))
    assert not torch.allclose(network(x, t), network(x, t, torch.full((5,), 3)))


def test_time_matters_and_may_be_fractional(network, inputs):
    x, t, label = inputs
    assert torch.equal(network(x, t, label), network(x, t.float(), label))
    whole, half, next_ = (network(x, t.float() + shift, label) for shift in (0.0, 0.5, 1.0))
    assert (whole - half).abs().max() > 1e-4
    assert (half - next_).abs().max() > 1e-4


def test_sinusoids_are_those_of_the_paper():
    embedding = TimeEmbedding(8, 8)
    torch.nn.init.eye_(embedding.hidden.weight)
    torch.nn.init.zeros_(embedding.hidden.bias)
    embedding.out = torch.nn.Identity()
    angles = 700.0 * 10000.0 ** -(np.arange(4) / 3)
    raw = np.concatenate([np.sin(angles), np.cos(angles)])
    expected = torch.tensor(raw / (1 + np.exp(-raw)), dtype=torch.float32)
    # Angles up to 700 in float32 are off by up to 700 * 2^-24 = 4e-5.
    torch.testing.assert_close(embedding(torch.tensor([700]))[0], expected, rtol=0, atol=1e-4)


def test_sinusoids_of_a_network_cast_to_bfloat16_are_those_of_the_time():
    """Of a rounded time and rounded frequencies they would be off by their own size; rounded themselves, by 2^-9 at most."""
    embedding, times = TimeEmbedding(64, 8), torch.tensor([999.0, 701.0, 10.0])
    exact = sinusoids(times, embedding.frequencies)
    cast = sinusoids(times, embedding.to(torch.bfloat16).frequencies)
    assert cast.dtype == torch.bfloat16
    assert (cast.float() - exact).abs().max() <= 2**-9
    assert embedding(times).dtype == torch.bfloat16


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_is_softmax_attention_and_ignores_the_order_of_pixels(heads):
    attention = awake(SelfAttention(16, heads, groups=4))
    x = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(2))
    q, k, v = attention.qkv(attention.norm(x)).reshape(2, 3, heads, 16 // heads, 16).unbind(1)
    weights = torch.einsum("bhdn,bhdm->bhnm", q, k).div((16 // heads) ** 0.5).softmax(-1)
    mixed = torch.einsum("bhnm,bhdm->bhdn", weights, v).reshape(2, 16, 4, 4)
    torch.testing.assert_close(attention(x), x + attention.out(mixed), rtol=1e-5, atol=1e-5)

    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    moved = x.flatten(2)[:, :, order].reshape(x.shape)
    torch.testing.assert_close(attention(moved).flatten(2), attention(x).flatten(2)[:, :, order], rtol=1e-5, atol=1e-5)


def test_other_sizes_levels_and_output_channels():
    network = awake(df.nn.UNet(3, 6, channels=8, multipliers=(1, 2, 2), blocks=1, attention_levels=(1, 2), heads=2, groups=4))
    assert network(torch.zeros(2, 3, 8, 12), torch.tensor([1, 2])).shape == (2, 6, 8, 12)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"channels": 20, "groups": 8}, "channels"),
        ({"channels": 0}, "channels"),
        ({"multipliers": ()}, "multipliers"),
        ({"multipliers": (1, 0)}, "multipliers"),
        ({"attention_levels": (2,)}, "attention_levels"),
        ({"heads": 3}, "heads"),
        ({"num_classes": 0}, "num_classes"),
        ({"blocks": 0}, "blocks"),
        ({"multipliers": (1, 1.01)}, "multipliers"),
        ({"head_channels": 7}, "head_channels"),
        ({"head_channels": 8, "heads": 2}, "give one"),
        ({"resample": "pool"}, "conv, resnet"),
    ],
)
def test_senseless_architectures_are_refused(options, named):
    with pytest.raises(ArgumentError, match=named):
        df.nn.UNet(1, **{"channels": 32, "groups": 8, **options})


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: df.nn.DiT(1, size=5), "patch"),
        (lambda: df.nn.DiT(1, width=100), "heads"),
        (lambda: df.nn.MLP(0), "features"),
        (lambda: df.nn.MLP(2, depth=0), "depth"),
    ],
)
def test_senseless_sizes_are_refused(build, named):
    with pytest.raises(ArgumentError, match=named):
        build()


def test_senseless_inputs_are_refused(network):
    t = torch.tensor([1])
    for shape in [(1, 2, 8, 8), (1, 1, 7, 8), (1, 8, 8)]:
        with pytest.raises(ArgumentError, match="shape"):
            network(torch.zeros(shape), t)
    with pytest.raises(ArgumentError, match="num_classes"):
        df.nn.UNet(1, channels=8, groups=4)(torch.zeros(1, 1, 8, 8), t, t)


@pytest.mark.filterwarnings("ignore")  # the exporter's own deprecations
def test_exports_one_attention_operator_with_a_dynamic_batch(inputs, tmp_path):
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    path = tmp_path / "unet.onnx"
    network = awake(
        df.nn.UNet(1, channels=16, multipliers=(1,), groups=8, blocks=1, num_classes=10)
    )  # attention in the middle alone
    x, t, label = inputs
    dynamic = {0: torch.export.Dim.DYNAMIC}
    torch.onnx.export(
        network,
        (x[:2], t[:2], label[:2]),
        path,
        dynamo=True,
        opset_version=23,
        verbose=False,
        external_data=False,
        input_names=["x", "t", "label"],
        output_names=["output"],
        dynamic_shapes=(dynamic, dynamic, dynamic),
    )
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("Attention") == 1
    assert "Softmax" not in operators
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 3, 5):
        given = {"x": x[:batch].numpy(), "t": t[:batch].numpy(), "label": label[:batch].numpy()}
        with torch.no_grad():
            expected = network(x[:batch], t[:batch], label[:batch]).numpy()
        np.testing.assert_allclose(session.run(None, given)[0], expected, rtol=1e-4, atol=1e-4)
