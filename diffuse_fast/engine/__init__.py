"""The engine: runs the rows of plans on a network and a step kernel.

``sample`` and ``Sampler`` are the entry points. ``setup`` chooses network, kernel and device; ``request`` checks what is asked for;
``slots`` holds the samples in flight, and ``loop`` drives it; ``devices`` has what differs between the CPU and CUDA.
"""
