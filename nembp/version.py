"""The version, for whoever writes it into a file or shows it."""

__version__ = "0.2.0"
