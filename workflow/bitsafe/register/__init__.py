"""The register: one governed artefact per quantized or patched cell, from what the files at hand show."""
