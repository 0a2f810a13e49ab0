"""Mesh files: one reader and one writer a format, and what they share. `backend.representations.mesh_io` is the door."""
