"""Measurements: each module prints a table and, with `--json FILE`, writes its figures."""
