"""Registers and loops: everything here knows NumPy and Numba, and nothing of tensors or layers."""
