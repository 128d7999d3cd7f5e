"""Settings of an optimizer, as plain values."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Adam:
    """Settings of torch's Adam; a weight decay above 0 makes it AdamW."""

    rate: float = 1e-3
    """Learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    decay: float = 0.0
    eps: float = 1e-8
