"""How often the training data mention a fact: every way of counting gives the same table."""
