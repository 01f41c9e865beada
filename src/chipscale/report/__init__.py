"""Tables, charts and pages: formatting only, no arithmetic."""
