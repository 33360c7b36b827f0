"""The bench times peers that draw the same samples: here each is asked, and their networks are the ones that the page names."""

from __future__ import annotations

import numpy as np
import pytest

from bench import networks, worker
from bench.modules import export_plainly, module, parameters
from bench.networks import NETWORKS
from bench.peers import PEERS, Entry, Job
from bench.peers.base import Unavailable
from bench.peers.torch_loop import TorchLoop
from diffuse_fast.kernels import num_threads, set_num_threads

EXPECTED = {
    "diffuse_fast", "torch loop", "diffusers", "diffusers, channels-last", "onnxruntime + diffusers", "onnxruntime loop",
    "OpenVINO + diffusers", "OpenVINO loop", "MNN + diffusers",
}  # fmt: skip


@pytest.fixture(autouse=True)
def threads():
    """Peers set the number of threads of their library: as it was, for the tests that follow."""
    import torch

    before = torch.get_num_threads(), num_threads()
    yield
    torch.set_num_threads(before[0])
    set_num_threads(before[1])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder of the networks' files, with the digits network."""
    import bench.mnn
    import bench.peers.mnn

    folder = tmp_path_factory.mktemp("networks")
    with pytest.MonkeyPatch.context() as patch:
        for holder in (networks, bench.mnn, bench.peers.mnn):
            patch.setattr(holder, "FOLDER", folder)
        export_plainly("digits")
        yield


# One peer for each way to compute the DDIM steps; the others have the loop or the scheduler of one of these.
LOOPS = {"diffuse_fast", "torch loop", "diffusers", "onnxruntime loop"}


@pytest.mark.parametrize(
    ("job", "names"), [(Job("digits", 2, 4, 1), EXPECTED), (Job("digits", 2, 11, 1), LOOPS)], ids=["trailing", "leading"]
)
def test_peers_draw_the_same_samples(job, names, exported):
    import torch

    noise = np.random.default_rng(0).standard_normal((job.batch, *NETWORKS[job.network].shape)).astype(np.float32)
    reference = TorchLoop(job, module(job.network).double(), dtype=torch.float64)
    expected, output = reference.sample(noise), reference.network(noise, 499)
    for entry in PEERS:
        if entry.name in names:
            peer = entry.make(job)
            np.testing.assert_allclose(peer.sample(noise), expected, atol=2e-5, err_msg=entry.name)
            np.testing.assert_allclose(peer.network(noise, 499), output, atol=2e-5, err_msg=entry.name)


class Off:
    """A peer whose network is off by a share of what it should be."""

    def __init__(self, share):
        self.share = share

    def sample(self, noise=None):
        return np.ones((2, 1))

    def network(self, x, t):
        return np.full((2, 1), float(t)) * (1 + self.share if t == 900 else 1)


@pytest.mark.parametrize(
    ("precision", "share", "timed"),
    [("float32", 0.0, True), ("float32", 5e-4, True), ("float32", 2e-3, False), ("int8", 2e-3, True), ("int8", 0.3, False),
     ("float32", float("nan"), False)],
)  # fmt: skip
def test_what_computes_something_else_is_not_timed(tmp_path, monkeypatch, precision, share, timed):
    monkeypatch.setattr(Entry, "make", lambda entry, job: Off(share))
    monkeypatch.setattr(worker, "pin", lambda threads: None)
    monkeypatch.setattr(worker, "check_pinned", lambda threads: None)
    times = [100, 900]
    outputs = [np.full((2, 1), float(t)) for t in times]
    np.savez(tmp_path / "known.npz", noise=np.ones((2, 1)), x=np.ones((2, 1)), times=times, outputs=outputs, sample=np.ones((2, 1)))
    entry, job, known = Entry("one", "none", precision=precision), Job("digits", 2, 1, 1), str(tmp_path / "known.npz")
    if timed:
        assert worker.set_up(entry, job, known)[1]["error_of_call"] == pytest.approx(share)
    else:
        with pytest.raises(Unavailable, match="its network call is off by"):
            worker.set_up(entry, job, known)


def test_the_medium_network_is_that_of_ddpm():
    """As many parameters as Ho et al.'s for CIFAR-10: 35.7 M."""
    assert parameters("cifar10") == 35_746_307
    assert round(parameters("unet28") / 1e6) == 4


def test_every_peer_has_its_own_name():
    assert len({e.name for e in PEERS}) == len(PEERS)
