"""Random programs over all that is bounded, and the search for a point outside of their bounds."""
