"""What can be exchanged: runners for file formats, and stores. Plugins see the contracts and nothing else."""
