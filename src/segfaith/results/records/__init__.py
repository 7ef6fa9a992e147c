"""Run directories: schema, files, runs, and which of them a conclusion is drawn from."""
