"""Access to the API server for the operator and the command line, and the store of the sealing keys."""
