"""Evidence for explanations: the model's passes whose results the built-in methods turn into maps."""
