"""What a cluster asks of a run: cells as single jobs, jobs that outlived their run, one writer a file."""
