"""From what a model made to numbers: how good it is."""
