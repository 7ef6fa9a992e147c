"""Uses of the planted scenes: training the embedded model, proving that it uses the evidence, judging methods."""
