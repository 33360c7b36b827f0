"""A training run: the loop, its state, checkpoints, logs, previews and processes."""
