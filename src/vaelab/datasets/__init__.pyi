from .images import Dataset as Dataset, Images as Images
from .loading import describe_dataset as describe_dataset, load_dataset as load_dataset
