"""Models of ratings.

base: the protocol, with global mean and biases. autorec, deep_autorec, kernel_ae, vae: autoencoders, on what
masked_autoencoder shares among them. rbm, knn, biased_mf.
"""
