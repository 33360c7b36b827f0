"""The configuration of a training run, as a TOML file and as objects."""
