"""Where images come from: folders, arrays, tables, the hub."""
