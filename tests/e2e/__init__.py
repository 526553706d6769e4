"""Tests on a kind cluster; a package, so that the fixture deletes the cluster after its last test."""
