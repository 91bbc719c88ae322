"""How fast a model generates, and how far that is from what the machine allows."""
