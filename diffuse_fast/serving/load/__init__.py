"""Measure a server under load: open-loop Poisson arrivals, their latencies, and what was done within its deadline. The entry point
is :func:`.run.measure`."""
