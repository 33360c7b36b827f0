"""Serving: one batch per model that requests join and leave between steps. :mod:`.workers` is the entry point."""
