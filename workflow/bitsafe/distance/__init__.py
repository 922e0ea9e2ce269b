"""How far a cell's next-token distributions lie from full precision's, on full precision's own answers.

Diagnostics, never a waiver: a cell that is near may still have lost its refusals (Dutta et al. 2407.09141 on what
averages hide), and one that is far may have kept them. They stand in distance.csv, apart from every score.
"""
