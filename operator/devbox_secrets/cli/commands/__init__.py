"""The commands, one module per family; families don't import each other."""
