"""Daily returns of stock indices: whether few evaluations reach their tails."""
