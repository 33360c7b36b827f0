"""Small members of the families of diffusion networks, with random weights, and their ONNX files.

Each costs at most two million multiply-adds per sample where its code allows it. No parameter is zero or one: none hides a dropped
operation.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

import diffuse_fast as df
from tests.program import networks

OPSETS = (18, 21, 23)


@dataclass(frozen=True)
class Family:
    """A network to be lowered.

    Attributes:
        name: How the tests call it.
        make: Builds the module.
        shape: Shape of a sample.
        time: ``steps`` for integers below 100, ``unit`` for numbers from 0.1 to 1.
        conditions: Name of each conditioning input: its shape, and how many classes it has (0 for real numbers).
        call: Calls the module with (module, x, t, *conditions).
        packages: What must be installed.
    """

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    time: str = "steps"
    conditions: dict[str, tuple[tuple[int, ...], int]] = field(default_factory=dict)
    call: Callable = lambda module, *inputs: module(*inputs)
    packages: tuple[str, ...] = ()

    @functools.cached_property
    def module(self) -> nn.Module:
        """The module with seeded weights, called with (x, t, *conditions) by position."""
        torch.manual_seed(0)
        module = positional(self.make(), len(self.conditions), self.call).eval()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn(parameter.shape), alpha=0.1)
        return module.requires_grad_(False)

    def inputs(self, batch: int, seed: int = 0) -> list[torch.Tensor]:
        """x, t and the conditioning inputs for a batch; the times repeat."""
        torch.manual_seed(seed)
        distinct = (batch + 1) // 2
        t = torch.randint(0, 100, (distinct,)) if self.time == "steps" else torch.rand(distinct) * 0.9 + 0.1
        conditions = [
            torch.randint(0, classes, (batch, *shape)) if classes else torch.randn(batch, *shape)
            for shape, classes in self.conditions.values()
        ]
        return [torch.randn(batch, *self.shape), t.repeat(2)[:batch], *conditions]

    def export(self, path: Path, opset: int) -> Path:
        """Write the ONNX file with torch's exporter."""
        torch.onnx.export(
            self._traced,
            dynamo=True,
            opset_version=opset,
            input_names=self._names,
            output_names=["output"],
            dynamic_shapes=self._dynamic,
            external_data=False,
            verbose=False,
            f=str(path),
        )
        return path

    def export_by_tracing(self, path: Path) -> Path:
        """Write the ONNX file with torch's older exporter, at opset 18. Many files come from it, and it takes a second."""
        torch.onnx.export(
            self.module,
            tuple(self.inputs(2)),
            str(path),
            dynamo=False,
            opset_version=18,
            input_names=self._names,
            output_names=["output"],
            dynamic_axes={name: {0: "batch"} for name in (*self._names, "output")},
        )
        return path

    @property
    def _names(self) -> list[str]:
        return ["x", "t", *self.conditions]

    @property
    def _dynamic(self) -> tuple[dict, ...]:
        return ({0: torch.export.Dim.DYNAMIC},) * (2 + len(self.conditions))

    @functools.cached_property
    def _traced(self) -> torch.export.ExportedProgram:
        return torch.export.export(self.module, tuple(self.inputs(2)), dynamic_shapes=self._dynamic, strict=False)

    def __hash__(self) -> int:
        return hash(self.name)


class _Positional(nn.Module):
    def __init__(self, module: nn.Module, call: Callable):
        super().__init__()
        self.module, self.call = module, call

    def evaluate(self, *inputs: torch.Tensor) -> torch.Tensor:
        result = self.call(self.module, *inputs)
        return result[0] if isinstance(result, tuple) else result


def positional(module: nn.Module, conditions: int, call: Callable) -> nn.Module:
    """The module with a fixed number of inputs: torch.export takes the dynamic dimensions of each by its place."""
    forwards = (
        lambda self, x, t: self.evaluate(x, t),
        lambda self, x, t, a: self.evaluate(x, t, a),
        lambda self, x, t, a, b: self.evaluate(x, t, a, b),
        lambda self, x, t, a, b, c: self.evaluate(x, t, a, b, c),
    )
    return type("Positional", (_Positional,), {"forward": forwards[conditions]})(module, call)


def installed(family: Family) -> bool:
    """Whether the packages of a family can be imported."""
    try:
        for package in family.packages:
            importlib.import_module(package)
    except ImportError:
        return False
    return True


# ---- our own --------------------------------------------------------------------------------------

LABEL = {"label": ((), 4)}

OWN = (
    Family("df.nn.MLP", lambda: df.nn.MLP(2, width=32, depth=3), (2,)),
    Family("df.nn.MLP classes", lambda: df.nn.MLP(5, 7, width=24, depth=2, num_classes=4), (5,), conditions=LABEL),
    Family("df.nn.UNet", lambda: df.nn.UNet(1, channels=8, multipliers=(1, 2), blocks=1), (1, 8, 8)),
    Family(
        "df.nn.UNet attention, classes",
        lambda: df.nn.UNet(3, channels=8, blocks=1, attention_levels=(1,), heads=2, num_classes=4),
        (3, 8, 8),
        conditions=LABEL,
    ),
    Family(
        "df.nn.UNet scale-shift, resnet",
        lambda: df.nn.UNet(3, 6, channels=12, multipliers=(1, 1.5), blocks=1, scale_shift=True, resample="resnet", heads=3),
        (3, 6, 8),
    ),
    Family("df.nn.UNet1D", lambda: df.nn.UNet1D(2, channels=16, blocks=1, attention_levels=(0,)), (2, 16)),
    Family("df.nn.UNet3D", lambda: df.nn.UNet3D(1, channels=4, blocks=1, multipliers=(1, 1)), (1, 4, 4, 4)),
    Family("df.nn.DiT", lambda: df.nn.DiT(4, size=8, width=24, depth=2, heads=2, num_classes=4), (4, 8, 8), conditions=LABEL),
)

# ---- diffusers ------------------------------------------------------------------------------------

DIFFUSERS = ("diffusers",)
TEXT = {"text": ((7, 12), 0)}


def _diffusers(name: str, **config: object) -> nn.Module:
    return getattr(importlib.import_module("diffusers"), name)(**config)


def _unet(**config: object) -> nn.Module:
    small = {
        "sample_size": 8,
        "in_channels": 3,
        "out_channels": 3,
        "layers_per_block": 1,
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "attention_head_dim": 8,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }
    return _diffusers("UNet2DModel", **(small | config))


def _conditional(**config: object) -> nn.Module:
    small = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": (8, 16),
        "cross_attention_dim": 12,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return _diffusers("UNet2DConditionModel", **(small | config))


def _plain(module, *inputs):
    return module(*inputs, return_dict=False)


def _classes(module, x, t, label):
    return module(x, t, class_labels=label, return_dict=False)


def _text(module, x, t, text):
    return module(x, t, encoder_hidden_states=text, return_dict=False)


def _sdxl(module, x, t, text, pooled, sizes):
    added = {"text_embeds": pooled, "time_ids": sizes}
    return module(x, t, encoder_hidden_states=text, added_cond_kwargs=added, return_dict=False)


def _pixart(module, x, t, text):
    added = {"resolution": None, "aspect_ratio": None}
    return module(x, encoder_hidden_states=text, timestep=t, added_cond_kwargs=added, return_dict=False)


def _flux(module, x, t, text, pooled):
    places = torch.zeros(16, 3) + torch.arange(16.0)[:, None]
    return module(x, text, pooled, t, img_ids=places, txt_ids=torch.zeros(7, 3), return_dict=False)


def _diffuser(name: str, make: Callable[[], nn.Module], shape: tuple[int, ...], call: Callable = _plain, **more: object) -> Family:
    # mypy cannot check fields that are passed on by name.
    return Family(f"diffusers {name}", make, shape, call=call, packages=DIFFUSERS, **more)  # type: ignore[arg-type]


FOREIGN = (
    _diffuser("UNet2D", lambda: _unet(norm_eps=1e-6, downsample_padding=0, freq_shift=1, flip_sin_to_cos=False), (3, 8, 8)),
    _diffuser(
        "UNet2D classes, scale-shift",
        lambda: _unet(in_channels=1, out_channels=1, num_class_embeds=11, resnet_time_scale_shift="scale_shift"),
        (1, 8, 8),
        _classes,
        conditions={"label": ((), 11)},
    ),
    _diffuser("UNet2D resnet resampling", lambda: _unet(downsample_type="resnet", upsample_type="resnet"), (3, 8, 8)),
    _diffuser(
        "UNet2D ADM blocks",
        lambda: _unet(
            down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
            resnet_time_scale_shift="scale_shift",
        ),
        (3, 8, 8),
    ),
    _diffuser("UNet2D fourier", lambda: _unet(time_embedding_type="fourier"), (3, 8, 8), time="unit"),
    _diffuser(
        "UNet2D NCSN++ (FIR)",
        lambda: _unet(
            down_block_types=("SkipDownBlock2D", "AttnSkipDownBlock2D"),
            up_block_types=("AttnSkipUpBlock2D", "SkipUpBlock2D"),
            time_embedding_type="fourier",
            block_out_channels=(32, 32),  # its norms have 32 groups
        ),
        (3, 4, 4),
        time="unit",
    ),
    _diffuser("UNet2DCondition SD1", _conditional, (4, 8, 8), _text, conditions=TEXT),
    _diffuser(
        "UNet2DCondition SD2",
        lambda: _conditional(use_linear_projection=True, attention_head_dim=(2, 4)),
        (4, 8, 8),
        _text,
        conditions=TEXT,
    ),
    _diffuser(
        "UNet2DCondition SDXL",
        lambda: _conditional(
            use_linear_projection=True,
            transformer_layers_per_block=2,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=4 * 6 + 12,
        ),
        (4, 8, 8),
        _sdxl,
        conditions=TEXT | {"pooled": ((12,), 0), "sizes": ((6,), 0)},
    ),
    _diffuser(
        "UNet2DCondition simple cross (IF)",
        lambda: _conditional(
            down_block_types=("SimpleCrossAttnDownBlock2D", "ResnetDownsampleBlock2D"),
            up_block_types=("ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            resnet_time_scale_shift="scale_shift",
        ),
        (4, 8, 8),
        _text,
        conditions=TEXT,
    ),
    _diffuser(
        "UNet1D",
        lambda: _diffusers(
            "UNet1DModel",
            sample_size=32,
            in_channels=2,
            out_channels=2,
            extra_in_channels=64,
            block_out_channels=(32, 32, 32),  # a head has 32 channels
            sample_rate=None,
            use_timestep_embedding=False,
        ),
        (2, 32),
    ),
    _diffuser(
        "UNet1D of planning",
        lambda: _diffusers(
            "UNet1DModel",
            sample_size=16,
            in_channels=14,
            out_channels=14,
            time_embedding_type="positional",
            use_timestep_embedding=True,
            act_fn="mish",
            freq_shift=1,
            flip_sin_to_cos=False,
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=("DownResnetBlock1D", "DownResnetBlock1D"),
            up_block_types=("UpResnetBlock1D",),
            out_block_type="OutConv1DBlock",
            mid_block_type="MidResTemporalBlock1D",
        ),
        (14, 16),
    ),
    _diffuser(
        "DiT",
        lambda: _diffusers(
            "DiTTransformer2DModel",
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            sample_size=8,
            patch_size=2,
            num_embeds_ada_norm=12,
            norm_num_groups=8,
        ),
        (4, 8, 8),
        _classes,
        conditions={"label": ((), 11)},
    ),
    _diffuser(
        "PixArt",
        lambda: _diffusers(
            "PixArtTransformer2DModel",
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            sample_size=8,
            patch_size=2,
            cross_attention_dim=16,
            caption_channels=12,
        ),
        (4, 8, 8),
        _pixart,
        conditions=TEXT,
    ),
    _diffuser(
        "SD3",
        lambda: _diffusers(
            "SD3Transformer2DModel",
            sample_size=8,
            patch_size=2,
            in_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=12,
            caption_projection_dim=16,
            pooled_projection_dim=12,
            out_channels=4,
            pos_embed_max_size=8,
        ),
        (4, 8, 8),
        lambda module, x, t, text, pooled: module(x, text, pooled, t, return_dict=False),
        conditions=TEXT | {"pooled": ((12,), 0)},
    ),
    _diffuser(
        "Sana",
        lambda: _diffusers(
            "SanaTransformer2DModel",
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=12,
            sample_size=8,
            patch_size=1,
        ),
        (4, 8, 8),
        lambda module, x, t, text: module(x, text, t, return_dict=False),
        conditions=TEXT,
    ),
    _diffuser(
        "Flux",
        lambda: _diffusers(
            "FluxTransformer2DModel",
            patch_size=1,
            in_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=12,
            pooled_projection_dim=12,
            axes_dims_rope=(4, 6, 6),
        ),
        (16, 4),
        _flux,
        time="unit",
        conditions=TEXT | {"pooled": ((12,), 0)},
    ),
    _diffuser(
        "unCLIP prior",
        lambda: _diffusers(
            "PriorTransformer",
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            embedding_dim=12,
            num_embeddings=7,
            additional_embeddings=4,
        ),
        (12,),
        lambda module, x, t, pooled, text: module(x, t, pooled, text, return_dict=False),
        conditions={"pooled": ((12,), 0)} | TEXT,
    ),
)

# ---- denoising-diffusion-pytorch ------------------------------------------------------------------

LUCIDRAINS = ("denoising_diffusion_pytorch",)


def _lucidrains(name: str, **config: object) -> nn.Module:
    return getattr(importlib.import_module("denoising_diffusion_pytorch"), name)(**config)


DDP = (
    Family(
        "ddp Unet",
        lambda: _lucidrains("Unet", dim=8, dim_mults=(1, 2), channels=3, attn_dim_head=4, attn_heads=2),
        (3, 8, 8),
        packages=LUCIDRAINS,
    ),
    Family(
        "ddp Unet learned fourier, self-conditioned",
        lambda: _lucidrains(
            "Unet",
            dim=8,
            dim_mults=(1, 2),
            channels=3,
            attn_dim_head=4,
            attn_heads=2,
            learned_sinusoidal_cond=True,
            self_condition=True,
        ),
        (3, 8, 8),
        "unit",
        {"last": ((3, 8, 8), 0)},
        packages=LUCIDRAINS,
    ),
    Family("ddp Unet1D", lambda: _lucidrains("Unet1D", dim=8, dim_mults=(1, 2), channels=3), (3, 16), packages=LUCIDRAINS),
    Family(
        "ddp KarrasUnet",
        lambda: _lucidrains(
            "KarrasUnet",
            image_size=8,
            dim=8,
            dim_max=16,
            num_downsamples=1,
            channels=3,
            num_blocks_per_stage=1,
            attn_dim_head=4,
            attn_res=(4,),
            fourier_dim=8,
        ),
        (3, 8, 8),
        "unit",
        packages=LUCIDRAINS,
    ),
)

# ---- written out in networks.py -------------------------------------------------------------------

WRITTEN = (
    Family("guided-diffusion", networks.Guided, (3, 8, 8), conditions={"label": ((), 10)}),
    Family("policy ConditionalUnet1D", networks.Policy, (16, 3), conditions={"observation": ((10,), 0)}),
    Family("facebook DiT", networks.PatchTransformer, (4, 8, 8), conditions={"label": ((), 11)}),
    Family("DiT qk-norm", lambda: networks.PatchTransformer(qk_norm=True), (4, 8, 8), conditions={"label": ((), 11)}),
    Family("DiT RoPE, RMSNorm", lambda: networks.PatchTransformer(rope=True, rms=True), (4, 8, 8), conditions={"label": ((), 11)}),
    Family("MLP residual", networks.ResidualMLP, (2,), "unit"),
    Family("MLP concatenating", networks.ConcatenatingMLP, (3,)),
)

FAMILIES = {family.name: family for family in (*OWN, *FOREIGN, *DDP, *WRITTEN)}
