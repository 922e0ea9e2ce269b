"""What `mixed_precision` is made of: its parameters, the importance of weights, and what they were before rounding."""
