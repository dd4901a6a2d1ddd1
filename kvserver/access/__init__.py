"""Who may do what: users, their passwords, and rules over commands, keys, channels and databases."""
