"""Readers of the files of other systems, for comparison."""
