"""The kit: what two HeartGuard services need, written once."""

__version__ = "0.1.0"
