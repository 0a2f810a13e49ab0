"""Losses as pure functions of tensors: no settings, no weights, no randomness."""
