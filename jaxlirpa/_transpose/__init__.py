"""Exceptions to what a family does, one operation a file, each where it is worth its lines."""
