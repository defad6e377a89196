"""Training by gradients.

loop: epochs, early stopping, best weights. batches: rows of a CSR matrix on the device. context: settings of a training
run. data_parallel: several processes that train one model.
"""
