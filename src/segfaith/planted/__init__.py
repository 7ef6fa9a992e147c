"""What the planted scenes are for: training the embedded model, proving that it uses the evidence, judging methods."""
