"""Lists and embeddings for all users, written to files that can be trusted.

plan: what is written. targets: whose lists are made, with their histories. rules: what may be in them.
output: a batch on disk, resumed and replaced. shards: how one file is made. engines: local threads or a Ray cluster.
encoding: embeddings in shards. memory: workers within a limit. gates: limits before publishing. predictions: ratings of
(user, item) pairs.
"""
