"""Thresholds that the kernels and the plain-torch reference share."""

SMALLEST_W = 1.0e-6
"""A vertex nearer than this along the viewing axis cannot be seen (it would be divided by)."""

LARGEST = 3.0e38
"""A coordinate or a depth beyond this counts as infinite."""

W_SLACK = 1.0e-3
"""How much nearer than a silhouette edge, relative to w, the pixel behind it may be before the edge is hidden."""

SLOPE_SLACK = 2.0
"""Two neighboring pixels see one surface if their depths differ by at most so many times its slope there."""

SOFT_REACH = 9.2
"""Softly, a face counts up to this many sigma of squared distance outside of it: a coverage of 1e-4."""

FURTHEST_REACH = 3.0
"""How far the near color is continued to a silhouette, in units of the step between the two pixels inside."""

SMALLEST_NORMAL = 1.0e-20
"""A sum of face normals shorter than this has no direction; the vertex normal stays 0."""

SMALLEST_LENGTH = 1.0e-8
"""An interpolated normal is divided by its length, but never by less than this."""

HASH_PRIMES = (1, 2654435761, 805459861)
"""Of the spatial hash for x, y and z (Mueller et al. 2022, equation 4)."""

SMALLEST_ROUGHNESS = 0.05
"""Smoother surfaces are shaded as this: their highlights are smaller than a pixel."""

SMALLEST_COSINE = 0.01
"""Surfaces seen more nearly edge-on than this are shaded as this."""

DIELECTRIC_F0 = 0.04
"""What a surface that is no metal reflects at normal incidence: index of refraction 1.5, as in glTF."""

NEGLIGIBLE_WEIGHT = 1.0e-6
"""Samples of a volume that are seen with less than this contribute no normal and no color."""
