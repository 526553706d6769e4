"""Real Kubernetes for tests, benchmarks and the demo, from pinned sources; knows nothing of the product."""
