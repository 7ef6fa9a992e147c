r"""Region Intervention Attribution (RIA): the score drop of each region, painted on its pixels.

    A_{uv} = max(delta_{r(u,v)}, 0),    delta_r = s_c(x, M) - s_c(O(x, r), M),    then minmax

This is the paper's region intervention baseline. We added clipping at 0 and painting without interpolation
(SPEC section 2), and regions other than a grid's cells (`evidence.regions`).
"""

from segfaith.attribution.heatmap import minmax
from segfaith.types import Float, InterventionEvidence, Tensor


def ria(intervention: InterventionEvidence) -> Float[Tensor, "N H W"]:
    """RIA of N variants, in [0, 1]."""
    size = intervention.regions.shape[1:]
    return minmax(intervention.value.gather(1, intervention.regions.flatten(1)).reshape(-1, *size)).float()
