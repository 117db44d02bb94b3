"""Timings of jaxlirpa, beside auto_LiRPA where a checkout of it is given: see README.md."""
