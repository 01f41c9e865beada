"""Importers: other tools' results as records, one tool a file."""
