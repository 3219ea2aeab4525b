"""Small real implementations of the seams."""
