"""The map and its coordinators, plans and placement, the nodes' clocks, and how a cluster is."""
