"""The report: sections as data, and the renderers that turn them into a page, Markdown, LaTeX and the terminal."""
