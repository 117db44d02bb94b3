"""Defects that are put into copies of the package, one at a time, to see the tests find them."""
