"""Our bounds against stored bounds of another verifier, on the same networks."""
