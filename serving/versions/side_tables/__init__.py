"""Side tables of a version, loaded once and looked up by key."""
