"""The version, in one place: manifests record it, the build reads it."""

__version__ = "0.1.0"
