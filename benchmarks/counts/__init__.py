"""What layers would ask of a GPU, counted without one."""
