"""The quality process: compares variants with their reference, in the background."""
