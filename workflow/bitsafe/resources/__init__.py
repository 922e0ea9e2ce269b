"""What a job will take: memory, GPUs, cores, wall time and disk, from the model and the work (docs/resources.md)."""
