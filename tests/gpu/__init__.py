"""What needs a GPU: `make test-gpu` and `make bench-gpu` (docs/performance.md, "On a GPU")."""
