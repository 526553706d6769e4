"""What the operator decides. Pure: no clock, no I/O, no Kubernetes client; each rule has its table of cases."""
