"""Changes of deployments that are to be made later, in the name of whoever asked."""
