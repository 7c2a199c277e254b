from .densities import Normal as Normal, kl_normal as kl_normal, standard_normal as standard_normal
from .likelihoods import (
    ContinuousBernoulli as ContinuousBernoulli,
    CrossEntropy as CrossEntropy,
    CrossEntropyPlusSquaredError as CrossEntropyPlusSquaredError,
    DiscretisedLogistic as DiscretisedLogistic,
    Distortion as Distortion,
    Gaussian as Gaussian,
    Laplace as Laplace,
    Likelihood as Likelihood,
    LikelihoodParams as LikelihoodParams,
    SquaredError as SquaredError,
)
from .networks import Conv as Conv, Mlp as Mlp, Network as Network, ValidConv as ValidConv
from .priors import Prior as Prior, PriorDensity as PriorDensity, StandardNormal as StandardNormal
from .summary import Layer as Layer, layers as layers
from .vae import VAE as VAE, VAEOutput as VAEOutput
