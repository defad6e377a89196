"""Interactions, and how they come in.

interactions: ids, positions, the table of rows and its ledger. matrix: the sparse user-item matrix. reading: ratings
files of any common format. store: a prepared, memory-mapped copy. download: public data sets. synthetic: made-up ones.
"""
