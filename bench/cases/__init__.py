"""One case per file: ``run(seconds) -> list[Line]``."""
