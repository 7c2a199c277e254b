from .disentangling import BetaTCVAE as BetaTCVAE, DIPVAE as DIPVAE, FactorVAE as FactorVAE
from .divergence import InfoVAE as InfoVAE
from .elbo import BetaVAE as BetaVAE, Capacity as Capacity
from .importance import ImportanceWeighted as ImportanceWeighted
from .objective import Objective as Objective
from .terms import LossTerms as LossTerms
