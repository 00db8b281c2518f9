"""Two modes on the line: noise levels that are learned with the network, against fixed ones."""
