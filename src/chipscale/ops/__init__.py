"""Operators of a workload: shapes in, Work out."""
