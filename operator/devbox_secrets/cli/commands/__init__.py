"""The commands, one module for each family; no family imports another."""
