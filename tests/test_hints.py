"""Words of other libraries get a hint, and files of other kinds are called by their names."""

from __future__ import annotations

import io
import json
import pickle
import zipfile

import numpy as np
import pytest

import diffuse_fast as df
from diffuse_fast.errors import ArgumentError, ArgumentTypeError, ArtifactError


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"num_inference_steps": 20}, r"steps="),
        ({"generator": 0}, r"seed="),
        ({"label": 7}, r"cond=\{'label': \.\.\.\}"),
        ({"cfg_scale": 2.0}, r"guidance_scale="),
        ({"latents": 0}, r"noise="),
        ({"negative_prompt": "x"}, r"negative_cond"),
        ({"ettta": 0.5}, r"Known: .*eta"),
    ],
)
def test_keywords(given, says):
    with pytest.raises(ArgumentTypeError, match=says):
        df.sample("digits", 1, 2, **given)


@pytest.mark.parametrize(
    ("solver", "says"),
    [
        ("DPM++ 2M Karras", r"solver='dpmpp_2m', timestep_spacing='karras'\."),
        ("DPM++ 2M SDE Karras", r"solver='dpmpp_2m_sde', timestep_spacing='karras'\."),
        ("DPM++ SDE", r"solver='dpmpp_2m_sde'\."),
        ("Euler a", r"solver='euler_ancestral'\."),
        ("sample_heun", r"solver='heun'\."),
        ("k_lms", r"solver='lms'\."),
        ("DDIM", r"solver='ddim'\."),
        ("PLMS", r"solver='pndm'\."),
        ("DDIM sampler", r"solver='ddim'\."),
        ("EulerDiscreteScheduler", r"df\.Plan\.from_diffusers"),
        ("dimm", r"Did you mean 'ddim'"),
    ],
)
def test_solvers(solver, says):
    with pytest.raises(ArgumentError, match=says):
        df.sample("digits", 1, 2, solver=solver)


@pytest.mark.parametrize(
    ("given", "says"),
    [("v", "'v_prediction'"), ("eps", "'epsilon'"), ("x0", "'sample'"), ("V-Prediction", "'v_prediction'"), ("velocity", "'flow'")],
)
def test_prediction_types(given, says):
    with pytest.raises(ArgumentError, match=f"Here it is .*{says}"):
        df.plan(df.Schedule.linear(), "ddim", 4, prediction_type=given)
    with pytest.raises(ArgumentError, match=says):
        df.probability_flow(lambda x, t: x, 1, shape=(1,), schedule=df.Schedule.vp_sde(), prediction_type=given)


def test_sample_refuses_options_of_the_plan():
    model = df.load("digits")
    sampler = df.Sampler(model, df.plan(model.schedule, "ddim", 2, prediction_type=model.prediction_type))
    with pytest.raises(TypeError, match=r"sample\(\) got an unexpected keyword argument 'steps'"):
        sampler.sample(2, steps=5)


def saved(write):
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def zipped(name):
    def write(buffer):
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(name, b"x")

    return saved(write)


header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
FILES = {
    "m.safetensors": (len(header).to_bytes(8, "little") + header + bytes(4), "safetensors.*without their network"),
    "m.npz": (saved(lambda f: np.savez(f, samples=np.zeros(3))), r"\.npz"),
    "m.npy": (saved(lambda f: np.save(f, np.zeros(3))), r"\.npy"),
    "m.pt": (zipped("archive/data.pkl"), "torch.save.*runs code"),
    "m.ckpt": (pickle.dumps({"a": 1}), "runs code"),
    "r.png": (b"\x89PNG\r\n\x1a\n" + bytes(8), "PNG image"),
    "r.jpg": (b"\xff\xd8\xff\xe0" + bytes(8), "JPEG image"),
    "r.gif": (b"GIF89a" + bytes(8), "GIF image"),
    "m.gguf": (b"GGUF" + bytes(8), "GGUF"),
    "config.json": (b'{"_class_name": "UNet2DModel"}', "JSON"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_other_kinds_are_called_by_their_names(name, tmp_path):
    content, says = FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"(?s){says}.*Only \.onnx files"):
        df.load(tmp_path / name)
