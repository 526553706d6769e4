"""The tests on a kind cluster: a package, so that the cluster ends with them."""
