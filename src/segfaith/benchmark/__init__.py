"""The benchmark: settings and plan, the worker that turns a sample into records, and what runs it."""
