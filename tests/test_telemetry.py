"""Nothing that samples, serves, tunes or trains opens a connection: a preloaded library refuses and logs libc's calls."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffuse_fast import telemetry

# Names and addresses are refused, so that nothing leaves the machine; sockets within it are left alone.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void note(const char *call, const char *name) {
  char line[300] = "";
  int log = open(getenv("SHIM_LOG"), O_WRONLY | O_CREAT | O_APPEND, 0600);
  strncat(line, call, 20);
  strncat(line, name ? name : "", 250);
  strcat(line, "\n");
  if (log >= 0 && write(log, line, strlen(line)) >= 0) close(log);
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
  note("getaddrinfo ", name);
  return EAI_NONAME;
}

int connect(int socket, const struct sockaddr *address, socklen_t length) {
  if (address && address->sa_family == AF_UNIX)
    return ((int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "connect"))(socket, address, length);
  note("connect", "");
  errno = ECONNREFUSED;
  return -1;
}
"""

# Everything that opens a runtime, then a wait until 15 s after the first was imported: onnxruntime waits for 10 s.
PATHS = """
import importlib.util, sys, time
import numpy as np
import diffuse_fast as df

begin = time.monotonic()
for runtime, package in (("onnx", "onnxruntime"), ("openvino", "openvino")):
    if importlib.util.find_spec(package):
        df.sample("digits", 1, 2, seed=0, runtime=runtime)
df.tune("digits", [1], seconds=0.02, runtimes=["onnx"])
if importlib.util.find_spec("torch"):
    config = importlib.import_module("diffuse_fast.training").TrainConfig(steps=2, batch_size=2, warmup_steps=1)
    net = df.nn.MLP(2, width=8, depth=1)
    df.train(net, np.zeros((4, 2), np.float32), schedule=df.Schedule.linear(), config=config)
    df.export(net.eval(), sys.argv[1] + "/m.onnx", shape=(2,), schedule=df.Schedule.linear(), prediction_type="epsilon")
    df.sample(sys.argv[1] + "/m.onnx", 1, 2, seed=0)
if importlib.util.find_spec("fastapi") and importlib.util.find_spec("httpx"):
    import asyncio
    import httpx
    from diffuse_fast.serving.http import create_app
    from diffuse_fast.serving.workers import Workers

    async def serve():
        workers = Workers({"digits": "digits"})
        await workers.start()
        transport = httpx.ASGITransport(create_app(workers))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            (await client.post("/v1/images/generations", json={"num_inference_steps": 2})).raise_for_status()
        await workers.stop(0)

    asyncio.run(serve())
time.sleep(max(0, 15 - (time.monotonic() - begin)))
"""

# What the runtimes do when they are left to themselves, until the log has both or 60 s are over.
CONTROL = """
import os, sys, time
import onnxruntime, openvino

onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
end = time.monotonic() + 60
while time.monotonic() < end:
    if os.path.exists(os.environ["SHIM_LOG"]) and {"microsoft", "google"} <= set(open(os.environ["SHIM_LOG"]).read().split(".")):
        break
    time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """The preloaded library."""
    if sys.platform != "linux" or shutil.which("gcc") is None:
        pytest.skip("needs Linux and gcc")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", folder / "shim.so", folder / "shim.c", "-ldl"], check=True, timeout=280)
    return folder / "shim.so"


def started(shim: Path, home: Path, code: str, *arguments: object, **more: str) -> subprocess.Popen:
    """A process with a home of its own, whose connections are refused and logged in ``home/log``."""
    home.mkdir()
    switches = ("ORT_DISABLE_TELEMETRY", "CI", "TF_BUILD", "JENKINS_URL", "DIFFUSE_FAST_CACHE")
    environment = {name: value for name, value in os.environ.items() if name not in switches}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "LD_PRELOAD": str(shim)}
    environment |= {"SHIM_LOG": str(home / "log"), **more}
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen) -> None:
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said


def test_nothing_is_sent(shim, tmp_path):
    pytest.importorskip("onnxruntime")
    process = started(shim, tmp_path / "home", PATHS, tmp_path)
    ended(process)
    log = tmp_path / "home" / "log"
    assert not log.exists(), log.read_text()
    left = [str(path.relative_to(tmp_path / "home")) for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert [name for name in left if not name.startswith("cache/diffuse_fast/tune3-")] == []


@pytest.mark.slow  # waits until both have sent
def test_the_runtimes_send_where_they_are_left_to_themselves(shim, tmp_path):
    """The positive control: without the variable, the same shim sees both."""
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    if tuple(map(int, ort.__version__.split(".")[:2])) < (1, 32):
        pytest.skip("onnxruntime sends nothing before 1.32")
    model = Path(__file__).parents[1] / "diffuse_fast" / "bundled" / "digits.onnx"
    ended(started(shim, tmp_path / "home", CONTROL, model))
    log = (tmp_path / "home" / "log").read_text()
    assert "microsoft" in log and "google" in log
    assert list((tmp_path / "home" / "cache").rglob("onnxruntime.db"))


@pytest.mark.parametrize("value", ["0", "1", ""])
def test_the_users_value_is_kept(value):
    code = "import os, diffuse_fast; print(repr(os.environ['ORT_DISABLE_TELEMETRY']))"
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": value}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=280)
    assert done.stdout == f"{value!r}\n"


def test_doctor_tells_what_was_imported_before(tmp_path):
    """Modules of those names, so that no real one sends anything."""
    for name in ("onnxruntime", "openvino_telemetry"):
        (tmp_path / f"{name}.py").write_text("")
    code = "import onnxruntime, openvino_telemetry\nfrom diffuse_fast.cli.doctor import examine\n"
    code += "print(*examine()['warnings'], sep='\\n')"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=280)
    assert [line.split()[0] for line in done.stdout.splitlines() if "telemetry" in line] == ["onnxruntime", "openvino"], done.stderr


@pytest.mark.parametrize(("consent", "there"), [(None, False), ("0", False), ("1", True)])
def test_openvinos_is_kept_where_the_user_consented(tmp_path, monkeypatch, consent, there):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    if consent is not None:
        (tmp_path / "intel").mkdir()
        (tmp_path / "intel" / "openvino_telemetry").write_text(consent)
    with telemetry.declined_by_openvino():
        assert ("openvino_telemetry" not in sys.modules) == there
    assert "openvino_telemetry" not in sys.modules
