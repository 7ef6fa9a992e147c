"""Records on disk, tables and pictures. Nothing here imports torch."""
