"""What a person asks in the terminal of finished runs: one cell (`show`), and two runs side by side (`compare`)."""
