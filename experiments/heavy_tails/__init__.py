"""Heavy tails: which starts reach them, and whether the plan notices."""
