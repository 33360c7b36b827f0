"""Export a torch module to an artifact."""

from .write_artifact import export

__all__ = ["export"]
