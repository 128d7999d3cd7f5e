"""What the package says to type, typed."""
