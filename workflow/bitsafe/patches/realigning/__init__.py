"""What `q_realign` is made of: its parameters, the line between refused and answered prompts, and what moves."""
