"""Benchmarks of Kinodex against what else there is, and against itself. Used by scripts/bench only."""
