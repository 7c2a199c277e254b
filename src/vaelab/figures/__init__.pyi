from .animation import save_animation as save_animation
from .curves import plot_curves as plot_curves
from .diagram import plot_model as plot_model
from .intervals import plot_intervals as plot_intervals
from .layout import save_figure as save_figure
from .run_figures import draw_run_figures as draw_run_figures
from .study_figures import draw_study_figures as draw_study_figures
from .tiles import (
    plot_grid as plot_grid,
    plot_interpolations as plot_interpolations,
    plot_reconstructions as plot_reconstructions,
    plot_traversals as plot_traversals,
)
