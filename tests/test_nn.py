"""The UNet: its size against the paper's, what it must not depend on, and that it exports whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError
from diffuse_fast.nn.blocks import SelfAttention, TimeEmbedding


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
    return (
        torch.randn(5, 1, 8, 8, generator=generator),
        torch.tensor([0, 3, 500, 998, 999]),
        torch.tensor([0, 9, 4, 10, 1]),
    )


def test_parameter_count_of_the_ddpm_paper():
    # Ho et al. 2020, appendix B: 35.7 M for CIFAR-10; their code counts 35,746,307.
    with torch.device("meta"):
        network = df.nn.UNet(3, channels=128, multipliers=(1, 2, 2, 2), blocks=2, attention_levels=(1,), dropout=0.1)
    assert sum(p.numel() for p in network.parameters()) == 35_746_307


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
    torch.testing.assert_close(
        attention(moved).flatten(2), attention(x).flatten(2)[:, :, order], rtol=1e-5, atol=1e-5
    )  # fmt: skip


def test_other_sizes_levels_and_output_channels():
    network = awake(
        df.nn.UNet(3, 6, channels=8, multipliers=(1, 2, 2), blocks=1, attention_levels=(1, 2), heads=2, groups=4)
    )
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
    ],
)
def test_senseless_architectures_are_refused(options, named):
    with pytest.raises(ArgumentError, match=named):
        df.nn.UNet(1, **{"channels": 32, "groups": 8, **options})


def test_senseless_inputs_are_refused(network):
    t = torch.tensor([1])
    for shape in [(1, 2, 8, 8), (1, 1, 7, 8), (1, 8, 8)]:
        with pytest.raises(ArgumentError, match="shape"):
            network(torch.zeros(shape), t)
    with pytest.raises(ArgumentError, match="num_classes"):
        df.nn.UNet(1, channels=8, groups=4)(torch.zeros(1, 1, 8, 8), t, t)


@pytest.mark.filterwarnings("ignore")  # the exporter's own deprecations
def test_exports_whole_with_a_dynamic_batch(network, inputs, tmp_path):
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    path = tmp_path / "unet.onnx"
    x, t, label = inputs
    dynamic = {0: torch.export.Dim.DYNAMIC}
    torch.onnx.export(
        network, (x[:2], t[:2], label[:2]), path, dynamo=True, opset_version=23, verbose=False, external_data=False,
        input_names=["x", "t", "label"], output_names=["output"], dynamic_shapes=(dynamic, dynamic, dynamic),
    )  # fmt: skip
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("Attention") == 1
    assert "Softmax" not in operators
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 3, 5):
        given = {"x": x[:batch].numpy(), "t": t[:batch].numpy(), "label": label[:batch].numpy()}
        with torch.no_grad():
            expected = network(x[:batch], t[:batch], label[:batch]).numpy()
        np.testing.assert_allclose(session.run(None, given)[0], expected, rtol=1e-4, atol=1e-4)
