"""The operator's decisions. Pure: no clock, no I/O, no Kubernetes client; each rule has a table of test cases."""
