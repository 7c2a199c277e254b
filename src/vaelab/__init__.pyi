import vaelab.api as _api

from .api import cache as cache
from .api import data as data
from .api import doctor as doctor
from .api import embed as embed
from .api import evaluate as evaluate
from .api import interpolate as interpolate
from .api import model as model
from .api import reconstruct as reconstruct
from .api import report as report
from .api import sample as sample
from .api import study as study
from .api import train as train
from .core.errors import UserError as UserError
from .runs.run import Run as Run
from .runs.run import load as load
from .runs.spec import Spec as Spec

__all__: tuple[str, ...]
__version__: str

list = _api.list_
