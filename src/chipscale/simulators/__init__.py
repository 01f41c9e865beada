"""Ways to turn a plan into seconds."""
