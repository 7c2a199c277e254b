"""Where images come from: folders, files, arrays, tables, the hub. Each module registers the sources it opens."""
