"""File formats of quantized checkpoints: one module each, named in bitsafe.artefacts.artefact.READERS."""
