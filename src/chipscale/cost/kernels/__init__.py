"""The forms of single kernels: one technique, one file."""
