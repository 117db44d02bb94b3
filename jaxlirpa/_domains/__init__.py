"""What an abstract domain does with each family of primitives. No domain knows a primitive."""
