"""Figures of features: pure functions of tensors, and sums from which they follow batch by batch."""
