"""What load tests found, for people: reports of one run, comparisons of two."""
