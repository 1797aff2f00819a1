"""A pretended GPU: what would fail or wait on CUDA is found on a machine without one."""

NAME = "pretend"  # of the device
