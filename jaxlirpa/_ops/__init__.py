"""What each primitive is. One table; the domains know families only."""
