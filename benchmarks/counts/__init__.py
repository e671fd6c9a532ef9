"""The demands of layers on a GPU, counted without one."""
