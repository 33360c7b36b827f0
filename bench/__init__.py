"""Benchmarks: `python -m bench`. Every result records the machine that it was measured on."""
