"""The networks of NOVA, and nothing else: positions, states and random numbers come in and go out."""
