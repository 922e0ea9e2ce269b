"""What several patches share: pairs, the choice of a rate, what a patch costs, and how it is written."""
