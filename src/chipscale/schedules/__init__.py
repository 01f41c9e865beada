"""Pipeline schedules: the order of operations on each rank, and what it costs in closed form."""
