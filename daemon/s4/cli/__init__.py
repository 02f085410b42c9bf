"""The `s4` command, and what only its users see: servers are started from here, administered, tried out and checked."""
