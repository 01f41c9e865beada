"""Serving: what a step costs, how requests share it, and what a busy service delivers."""
