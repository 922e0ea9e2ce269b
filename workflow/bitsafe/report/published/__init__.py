"""The tables and figures of the two papers, in their layout, with a run's numbers beside the printed ones."""
