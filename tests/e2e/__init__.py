"""The tests on a kind cluster; a package, so that the cluster is deleted after them."""
