"""Densities, networks, likelihoods, priors, and the VAE that combines them."""
