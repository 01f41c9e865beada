"""The nouns: chip, cluster, model, job, framework."""
