"""The settings of the digits recipe, ``examples/digits/config.toml``, as objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffuse_fast.training import TrainConfig
from diffuse_fast.training.config.config_section import make_schedule, read_config

SETTINGS = read_config(Path(__file__).parent.parent / "examples" / "digits" / "config.toml")
CONFIG = TrainConfig(**SETTINGS["train"])
SCHEDULE = make_schedule(SETTINGS["schedule"])
# Arguments of df.nn.UNet.
NETWORK: dict[str, Any] = {
    "in_channels": 1, "num_classes": 10, **{name: value for name, value in SETTINGS["network"].items() if name != "type"},
}  # fmt: skip
