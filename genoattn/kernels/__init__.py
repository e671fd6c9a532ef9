"""Triton kernels, one file a family; the only part of the package that imports triton."""
