"""Rollouts: a new version takes over a deployment step by step, as far as what servers count allows it, and goes back else."""
