"""Benchmarks: `python -m bench`. Every figure comes with the machine it was taken on."""
