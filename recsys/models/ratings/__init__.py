"""Models of ratings.

base: the protocol, with global mean and biases; baseline: mean and biases of items and users. autorec, deep_autorec,
kernel_ae, vae: autoencoders, on the shared masked_autoencoder. rbm, knn, biased_mf.
"""
