"""Comparisons of asktell with its peers that anyone can rerun: see benchmarks/README.md."""
