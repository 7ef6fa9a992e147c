"""Every table of numbers, each computed once, from records alone."""
