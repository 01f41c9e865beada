"""Where supply and demand meet: Work x Hardware -> seconds."""
