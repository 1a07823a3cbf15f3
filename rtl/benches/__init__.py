"""One bench a unit: the stimulus, and what the unit's model says to it."""
