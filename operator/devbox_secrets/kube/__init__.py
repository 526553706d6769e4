"""Access to the API server for the operator and the command line, and the stored sealing keys."""
