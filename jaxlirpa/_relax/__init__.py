"""One-dimensional mathematics: two lines around a function on an interval."""
