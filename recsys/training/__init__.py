"""Training by gradients.

loop: epochs, early stopping, best weights. batches: rows of a CSR matrix on the device. context: how a run happens.
data_parallel: several processes that train one model.
"""
