"""The mutating webhook: injects secrets where the API server has no injection policy."""
