from .embedding import embedding_table as embedding_table
from .interpolation import (
    Interpolation as Interpolation,
    interpolate_codes as interpolate_codes,
    interpolate_images as interpolate_images,
)
from .principal_components import (
    PrincipalComponents as PrincipalComponents,
    fit_principal_components as fit_principal_components,
    reconstruction_errors as reconstruction_errors,
)
from .projections import kmeans as kmeans, pca as pca, tsne as tsne
from .representation import mean_cca as mean_cca, separability_metrics as separability_metrics
from .samples import frechet_distance as frechet_distance, sample_prior as sample_prior
