"""Training by gradients.

loop: epochs, early stopping, best weights. batches: rows of a CSR matrix on the device. context: settings of a training
run. data_parallel: several processes that train one model. checkpoint: a fit that goes on after a kill, from the files
of checkpoint_files, part by part (parts, optimizer_state).
"""
