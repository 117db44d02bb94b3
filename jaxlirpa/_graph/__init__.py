"""From a Python function to a `Graph`: plain data that the domains walk."""
