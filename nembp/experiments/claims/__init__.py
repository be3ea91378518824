"""Published claims as protocols, a file a family."""
