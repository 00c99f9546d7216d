"""Statistics of scores: frames in, frames and frozen results out. No figures, no models."""
