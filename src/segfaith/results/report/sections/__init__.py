"""One topic a file: from an analysis to the section of the report about it."""
