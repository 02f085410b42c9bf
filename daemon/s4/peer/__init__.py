"""How gateways reach stores: one interface, called directly or through frames."""
