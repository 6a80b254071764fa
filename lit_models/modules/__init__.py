"""Plain networks and layers that models are made of."""
