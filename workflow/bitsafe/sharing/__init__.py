"""What leaves the folder of a run: artefacts that other runs take up, and the whole run as an archive."""
