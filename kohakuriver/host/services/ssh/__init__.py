"""SSH into workloads: what the port of `ssh_proxy` is made of."""
