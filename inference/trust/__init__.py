"""How far a denoised picture may be trusted, judged without a truth while it runs."""

from .figures import (
    TrustFigures,
    correlation,
    lag_one_correlation,
    residual_variances,
)
from .noise_variance import NoiseVariance

__all__ = [
    "NoiseVariance",
    "TrustFigures",
    "correlation",
    "lag_one_correlation",
    "residual_variances",
]
