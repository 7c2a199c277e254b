from vaelab.data import *  # noqa: F403
