"""How often the training data mention a fact: every way of counting gives the same table."""

from laser_interp.frequency.names import normalise
from laser_interp.frequency.scan import count

__all__ = ["count", "normalise"]
