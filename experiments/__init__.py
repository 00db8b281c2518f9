"""The experiments of the papers, and of the project: one folder each, one command each."""
