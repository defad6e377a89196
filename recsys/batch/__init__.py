"""Lists for everybody, in files.

audience: who gets lists and what may stand in them. output: plan, shards, manifest, resume. shards: how one is made.
ray_engine: shards on a cluster. gates: limits before publishing. predictions: predicted ratings of user-item pairs.
"""
