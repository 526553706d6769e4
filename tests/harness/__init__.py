"""Real Kubernetes for tests, benchmarks and the demo, independent of the product."""
