"""sine: edit one picture with words (SINE, CVPR 2023)."""

__version__ = "0.2.0.dev0"
