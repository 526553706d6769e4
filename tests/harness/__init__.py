"""Real Kubernetes for tests, benchmarks and the demo; knows nothing of the product."""
