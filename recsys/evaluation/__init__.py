"""How good a model is, and which of several is better.

metrics: NDCG, recall, RMSE, ... of single users. averages: means with confidence intervals. evaluate: a model on
held-out data. significance: paired differences. slices: by activity and popularity. beyond_accuracy: coverage, novelty,
diversity. calibration: predicted against observed ratings. comparison: several models together. tasks: what ranking and
rating each mean by a metric, a protocol, a report.
"""
