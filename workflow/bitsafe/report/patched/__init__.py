"""What is told of patches alone: their cost beside what they do, and what each of their settings does."""
