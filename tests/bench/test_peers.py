"""The bench times peers that draw the same samples: here each is asked, and their networks are the ones that the page names."""

from __future__ import annotations

import numpy as np
import pytest

from bench.modules import module, parameters
from bench.networks import NETWORKS
from bench.peers import PEERS, Job
from bench.peers.torch_loop import TorchLoop
from diffuse_fast.kernels import num_threads, set_num_threads

EXPECTED = {"diffuse_fast", "torch loop", "diffusers", "diffusers, channels-last"}


@pytest.fixture(autouse=True)
def threads():
    """Peers set the number of threads of their library: as it was, for the tests that follow."""
    import torch

    before = torch.get_num_threads(), num_threads()
    yield
    torch.set_num_threads(before[0])
    set_num_threads(before[1])


@pytest.mark.parametrize("job", [Job("digits", 2, 4, 1), Job("digits", 2, 3, 1)], ids=["trailing", "leading"])
def test_peers_draw_the_same_samples(job):
    import torch

    noise = np.random.default_rng(0).standard_normal((job.batch, *NETWORKS[job.network].shape)).astype(np.float32)
    reference = TorchLoop(job, module(job.network).double(), dtype=torch.float64)
    expected, output = reference.sample(noise), reference.network(noise, 499)
    for entry in PEERS:
        if entry.name in EXPECTED:
            peer = entry.make(job)
            np.testing.assert_allclose(peer.sample(noise), expected, atol=2e-5, err_msg=entry.name)
            np.testing.assert_allclose(peer.network(noise, 499), output, atol=2e-5, err_msg=entry.name)


def test_the_medium_network_is_that_of_ddpm():
    """As many parameters as Ho et al.'s for CIFAR-10: 35.7 M."""
    assert parameters("cifar10") == 35_746_307
    assert round(parameters("unet28") / 1e6) == 4


def test_every_peer_has_its_own_name():
    assert len({e.name for e in PEERS}) == len(PEERS)
