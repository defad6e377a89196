"""Deep autoencoders of preferences.

mult_vae: Mult-DAE, Mult-VAE. recvae. plain: under- and overcomplete, sparse. rbm. What they share: network (fit and
score), layers (sparse input, item output), sampled_softmax, mixed_precision.
"""
