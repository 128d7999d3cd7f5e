"""Nets and what trains them; torch only."""
