"""How candidates are chosen: the only place that does numerics."""
