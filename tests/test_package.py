"""The package as a whole: its public names, with and without torch, and as type checkers see them."""

from __future__ import annotations

import ast
import importlib.util
import pkgutil
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import diffuse_fast as df

PACKAGE = Path(df.__file__).parent
NEED_TORCH = {"ClassifierGuidance", "nn", "train"}


def tree():
    return ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))


def listed():
    """``__all__`` as it is written."""
    return next(
        ast.literal_eval(node.value)
        for node in tree().body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )


def imported():
    """The imports for type checkers: name -> (module, name there)."""
    (block,) = (node for node in tree().body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    found = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names:
            assert alias.asname == alias.name, f"{alias.name} is exported only if it is imported `as {alias.name}`"
            found[alias.name] = node.module
    return found


def test_names_are_said_once_in_three_places():
    assert listed() == sorted(listed())
    assert set(listed()) == {*imported(), "__version__"} == {*df._HOME, "__version__"}


def test_type_checkers_are_shown_where_a_name_is_defined():
    """From the package `engine` they would take `sample` for the module `engine/sample.py`, which is not callable."""
    for name, module in imported().items():
        if module is None:
            continue
        path = PACKAGE.joinpath(*module.split("."))
        path = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
        assert path.name != "__init__.py" or not (path.parent / f"{name}.py").exists(), f"{name}: import it from {module}.{name}"
        assert hasattr(importlib.import_module(f"diffuse_fast.{module}"), name)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_everything_works_without_torch():
    """In a process where torch, the runtimes and SciPy cannot be imported."""
    out = run(f"""
import sys
for name in ("torch", "triton", "onnx", "onnxruntime", "openvino", "MNN", "scipy", "PIL"):
    sys.modules[name] = None
import inspect, pydoc
import diffuse_fast as df

missing = {NEED_TORCH!r}
members = dict(inspect.getmembers(df))
assert {{"sample", "plan", "Schedule", "likelihood"}} <= set(members), members
assert not missing & set(members) and not missing & set(dir(df))
for name in missing:
    assert not hasattr(df, name)
    try:
        getattr(df, name)
    except df.DiffuseFastError as error:
        assert "needs torch" in str(error) and "pip install '.[train]'" in str(error)
    else:
        raise SystemExit(name)
try:
    from diffuse_fast import nn
except ImportError as error:
    assert "needs torch" in str(error)
text = pydoc.render_doc(df)
assert "sample(model" in text, text[:2000]
scope = {{}}
exec("from diffuse_fast import *", scope)
assert callable(scope["sample"]) and callable(scope["plan"]) and "nn" not in scope
print("done")
""")
    assert out == "done\n"


def test_with_torch_everything_is_there():
    pytest.importorskip("torch")
    scope: dict = {}
    exec("from diffuse_fast import *", scope)
    assert set(listed()) <= set(scope)
    assert callable(scope["sample"]) and callable(scope["plan"]) and callable(scope["likelihood"])
    assert all(hasattr(df, name) for name in listed()) and dir(df) == sorted(listed())
    assert not hasattr(df, "smaple")


SCRIPT = """
import diffuse_fast as df

model: df.Model = df.load("digits")
schedule: df.Schedule = df.Schedule.cosine()
plan: df.Plan = df.plan(schedule, "ddim", 20, prediction_type="epsilon")
x = df.sample(model, 4, 20, seed=0, cond={"label": 7})
y = df.Sampler(model, plan).sample(2, seed=1)
bits: float = df.likelihood(model, y).mean
rows: tuple[df.Row, ...] = plan.rows
z = df.step(x, y, rows[0])
net = df.nn.UNet(1)
"""
FAULTS = {
    'df.smaple("digits", 4)': "smaple",
    'df.sample("digits", "four")': "int",
    "wrong: int = df.Schedule.linear()": "int",
    'df.Sampler("digits", plan).sample(2, steps=5)': "steps",
}


@pytest.mark.slow  # a type checker reads NumPy and the whole package first; the tests above hold what it would find
@pytest.mark.parametrize("checker", ["mypy", "pyright", "basedpyright"])
def test_a_users_script_is_checked(checker, tmp_path):
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed")
    (tmp_path / "right.py").write_text(SCRIPT)
    for i, fault in enumerate(FAULTS):
        (tmp_path / f"wrong_{i}.py").write_text(f"{SCRIPT}\n{fault}\n")
    if checker == "mypy":
        (tmp_path / "mypy.ini").write_text(
            "[mypy]\nignore_missing_imports = True\n"
            "[mypy-torch.*,scipy.*,sklearn.*,onnx.*,onnxruntime.*,openvino.*,MNN.*,PIL.*,rich.*,datasets.*,matplotlib.*,triton.*]\n"
            "follow_imports = skip\n"  # none of them is asked about, and they take minutes
        )
        command = ["mypy", "--config-file", "mypy.ini", "--cache-dir", str(tmp_path / "cache")]
    else:
        (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "basic"}')
        command = [checker, "--pythonpath", sys.executable]
    done = subprocess.run([sys.executable, "-m", *command, *sorted(map(str, tmp_path.glob("*.py")))], cwd=tmp_path,
                          capture_output=True, text=True, timeout=280, check=False)  # fmt: skip
    found = [line for line in done.stdout.splitlines() if "error" in line]
    assert not any("right.py" in line for line in found), done.stdout
    for i, said in enumerate(FAULTS.values()):
        last = [line for line in found if f"wrong_{i}.py" in line]
        assert len(last) == 1 and said in last[0], done.stdout


def test_no_module_has_the_name_of_a_public_function():
    """Importing a submodule makes it an attribute of its package, so it would replace the function."""
    modules = {module.name for module in pkgutil.iter_modules(df.__path__)}
    assert modules & set(df.__all__) == {"interop", "nn", "theory"}


def test_production_installs_numpy_and_the_command_line_only():
    """What ``make demo`` installs beside the package itself: NumPy, and what the extra ``cli`` needs."""
    listed = re.findall(r"^([\w.-]+)==", (PACKAGE.parent / "requirements" / "production.txt").read_text(encoding="utf-8"), re.M)
    needed, waiting = set(), ["numpy", "typer", "rich", "pillow"]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in needed:
            continue
        needed.add(name)
        for line in metadata.requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    assert set(map(canonicalize_name, listed)) - {"colorama"} == needed  # colorama: on Windows
