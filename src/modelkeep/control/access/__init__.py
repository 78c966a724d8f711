"""Who may do what: workspaces, groups, and the roles that are granted to people, groups and keys."""
