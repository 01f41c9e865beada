"""How the rows of each file of measured operators become calls."""
