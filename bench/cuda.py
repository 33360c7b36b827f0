"""The step and the loop on a CUDA device: ``python -m bench --device cuda``.

Three tables: the bandwidth of the step against that of a device copy, the loop against other ways to sample a torch module, and the
number of kernels that a step launches. Without a GPU that torch can use it prints what is missing and exits with status 3.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console

import diffuse_fast as df
from diffuse_fast.engine.devices.choose import torch_reasons
from diffuse_fast.kernels import get_kernel, kernels
from diffuse_fast.plans.plan import Plan

from .machine import machine
from .measure import Timing, interleaved, ratio
from .report import Line, show

UNAVAILABLE = 3  # the exit status, as of `diffuse-fast sample --device cuda`
SHAPE = (64, 3, 256, 256)
LAUNCHES = 100  # captured in one graph, so that the host's launch overhead is not measured
STEPS, BATCH, SIDE = 50, 16, 32
LINEAR = df.Schedule.linear()
PLANS = {"ddim, clipped": ("ddim", 12), "ddpm, clipped": ("ddpm", 12)}  # (solver, bytes that a step moves per element)


def main(seconds: float, path: Path | None) -> int:
    """Measure and print all tables. Returns the exit status."""
    console = Console(width=150)
    if missing := torch_reasons():
        console.print(f"no CUDA device to measure on: {'; '.join(missing)}.")
        return UNAVAILABLE
    device = torch.device("cuda")
    where = {**machine(), "gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    console.print(f"{where['gpu']}, torch {torch.__version__}, CUDA {where['cuda']}, commit {where['commit']}")
    cases = {
        "step": ("the step, float32, (64, 3, 256, 256)", lambda: step(device, seconds)),
        "loop": (f"{STEPS} DDIM steps of a U-Net, batch {BATCH}, float32", lambda: loop(device, seconds)),
        "launches": ("kernels launched per step", lambda: launches(device)),
    }
    results = {}
    for name, (title, run) in cases.items():
        results[name] = run()
        show(console, title, results[name])
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = {name: [line.to_json() for line in lines] for name, lines in results.items()}
        path.write_text(json.dumps({"machine": where, "cases": lines}, indent=1, ensure_ascii=False) + "\n")
    return 0


def plan(solver: str, steps: int = STEPS) -> Plan:
    # DDIM uses the network's ε, not the ε of the clipped prediction, as the peer does.
    options = {"rederive_epsilon": False} if solver == "ddim" else {}
    return df.plan(LINEAR, solver, steps, prediction_type="epsilon", clip=(-1, 1), **options)


def waiting(run: Callable[[], object]) -> Callable[[], object]:
    """The call, followed by a wait for the device."""

    def waited() -> None:
        run()
        torch.cuda.synchronize()

    return waited


# ---- the step ----------------------------------------------------------------------------------------------------------------


def step(device: torch.device, seconds: float) -> list[Line]:
    x, m = (torch.randn(SHAPE, device=device) for _ in range(2))
    out = torch.empty_like(x)
    candidates = {"copy": _captured(lambda: out.copy_(x))}
    bytes_of = {"copy": 8}
    skipped = []
    for info in kernels():
        if info.device != "cuda":
            continue
        if info.unavailable is not None:
            skipped.append(Line(info.name, note=f"skipped: {info.unavailable}"))
            continue
        for case, (solver, size) in PLANS.items():
            name = f"{case}, {info.name}"
            candidates[name], bytes_of[name] = _stepping(info.name, solver, x, m, out), size
    times = interleaved(candidates, seconds=seconds)
    lines = []
    for name, taken in times.items():
        each = taken / LAUNCHES
        speed = bytes_of[name] * x.numel() / Timing.of(each).median / 1e9
        over = None if name == "copy" else ratio({name: each / bytes_of[name], "copy": times["copy"] / LAUNCHES / 8}, name, "copy")
        peer = None if over is None else "copy, per byte"
        lines.append(Line(name, seconds=Timing.of(each), peer=peer, ratio=over, note=f"{speed:.0f} GB/s"))
    return [*lines, *skipped]


def _captured(run: Callable[[], object]) -> Callable[[], object]:
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(LAUNCHES):
            run()
    return waiting(graph.replay)


def _stepping(kernel: str, solver: str, x: torch.Tensor, m: torch.Tensor, out: torch.Tensor) -> Callable[[], object]:
    bound = _bound(kernel, [plan(solver).rows[10]] * LAUNCHES, x, m, out)
    first = [0] * len(x)
    bound.place(first, first, **_on(kernel))
    replay = _captured(lambda: bound.launch(**_on(kernel)))

    def run() -> None:
        bound.place(first, first, **_on(kernel))
        replay()

    return run


def _bound(kernel: str, rows: list[df.Row], x: torch.Tensor, m: torch.Tensor, out: torch.Tensor):
    return get_kernel(kernel).bind(
        rows, x=x, out=out, outputs=[m], registers=None, seeds=[0] * len(x), indices=list(range(len(x))), **_on(kernel)
    )


def _on(kernel: str) -> dict[str, int]:
    """The stream argument of a kernel. Triton finds torch's current stream itself."""
    return {} if kernel == "triton" else {"stream": torch.cuda.current_stream().cuda_stream}


# ---- the loop ----------------------------------------------------------------------------------------------------------------


def unet(device: torch.device) -> torch.nn.Module:
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    return (
        UNet2DModel(
            sample_size=SIDE,
            block_out_channels=(64, 128, 128),
            layers_per_block=2,
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        )
        .eval()
        .to(device)
    )


def eager(call: Callable[..., torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """DDIM as one would write it by hand, with precomputed coefficients."""
    for row in plan("ddim").rows:
        t = torch.full((len(x),), int(row.timestep), device=x.device)
        x = eager_step(x, call(x, t), row)
    return x


def eager_step(x: torch.Tensor, m: torch.Tensor, row: df.Row) -> torch.Tensor:
    x0 = (row.p * x + row.q * m).clamp(row.lo, row.hi)
    return row.a * x + row.b * m + row.d * x0


def by_diffusers(network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    scheduler = scheduler_of_diffusers()
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t.to(x.device)).sample, t, x).prev_sample
    return x


def scheduler_of_diffusers():
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(num_train_timesteps=1000, beta_schedule="linear", clip_sample=True)
    scheduler.set_timesteps(STEPS)
    return scheduler


@torch.inference_mode()
def loop(device: torch.device, seconds: float) -> list[Line]:
    network = unet(device)
    start = torch.randn((BATCH, 3, SIDE, SIDE), device=device)
    compiled = torch.compile(lambda x, t: network(x, t).sample, mode="reduce-overhead")
    known = {"shape": (3, SIDE, SIDE)}
    ours = {graph: df.Sampler(network, plan("ddim"), graph=graph, **known) for graph in ("tick", "trajectory", "none")}
    candidates = {
        "eager torch": waiting(lambda: eager(lambda x, t: network(x, t).sample, start)),
        "diffusers": waiting(lambda: by_diffusers(network, start)),
        "torch.compile, reduce-overhead": waiting(lambda: eager(lambda x, t: compiled(x, t).clone(), start)),
        **{f"Sampler, graph={graph!r}": waiting(lambda s=sampler: s.sample(BATCH, noise=start)) for graph, sampler in ours.items()},
    }
    times = interleaved(candidates, seconds=seconds, turn=0.2)
    peer = "eager torch"
    return [Line(name, seconds=Timing.of(taken), peer=peer, ratio=ratio(times, name, peer)) for name, taken in times.items()]


# ---- launches ----------------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def launches(device: torch.device) -> list[Line]:
    x, m = (torch.randn((BATCH, 3, SIDE, SIDE), device=device) for _ in range(2))
    row, scheduler = plan("ddim").rows[10], scheduler_of_diffusers()
    steps: dict[str, Callable[[], object]] = {
        "eager torch": lambda: eager_step(x, m, row),
        "diffusers": lambda: scheduler.step(m, scheduler.timesteps[10], x),
    }
    for info in kernels():
        if info.device == "cuda" and info.unavailable is None:
            bound = _bound(info.name, [row] * 8, x, m, x)
            bound.place([0] * BATCH, [0] * BATCH, **_on(info.name))
            steps[f"ours, {info.name}"] = functools.partial(bound.launch, **_on(info.name))
    return [Line(name, value=float(launched(run)), unit="kernels") for name, run in steps.items()]


def launched(run: Callable[[], object]) -> int:
    """The number of kernels that one call launches."""
    run()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    events = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    return len([e for e in events if not e.name.startswith(("Memcpy", "Memset"))])
