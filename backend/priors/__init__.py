"""Diffusion models behind one small protocol: `Prior` in ``prior.py``."""

from backend.priors.load import load_prior

__all__ = ["load_prior"]
