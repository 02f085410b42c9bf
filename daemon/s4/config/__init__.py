"""What a process is told: bounds, settings of stores, addresses to listen on."""
