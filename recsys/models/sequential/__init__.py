"""Models of the order of a history.

last_item           a first-order Markov chain: what follows the last item
recent_popularity   what is popular of late
sasrec              a causal transformer; rows: its batches of sequences
"""
