"""Scores of segmentations, their robustness, and how they are reported."""
