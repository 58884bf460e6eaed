"""The version, where every room may read it; a test holds it to ``pyproject.toml``."""

__version__ = "0.1.0"
