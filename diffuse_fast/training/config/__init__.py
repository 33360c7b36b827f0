"""The configuration of a training run: the record, and the TOML file that describes one."""
