"""Training steps, one kind a file: eager, distributed, stacked and compiled. `choose_step` chooses among them."""
