"""Evidence: the only place where the model runs for an explanation, once per image variant."""
