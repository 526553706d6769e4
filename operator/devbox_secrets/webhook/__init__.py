"""The mutating webhook: injects secrets in clusters whose API server doesn't support the injection policy."""
