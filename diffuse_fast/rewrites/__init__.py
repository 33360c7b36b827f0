"""Graph rewrites: the same function in the operations that a runtime computes correctly and fastest."""
