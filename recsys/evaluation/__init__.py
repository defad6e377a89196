"""How good a model is, and which of several is better.

metrics: NDCG, recall, RMSE, ... of single users. averages: means over users with confidence intervals. evaluate: a
model on held-out data. significance: paired differences. slices: by activity and popularity. beyond_accuracy:
coverage, novelty, diversity. calibration: predicted against observed ratings. tasks: what ranking and rating each mean
by a metric, a protocol, a description. neighbors: what the nearest items of an item predict. results: what was measured
of one model. comparison: several models ranked. plan, study: fitting and measuring several models on the same splits.
probe: what tuning would change. examples: test users to look at.
"""
