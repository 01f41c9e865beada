"""Single operators: measured rows, the fit of their forms, predicted against measured."""
