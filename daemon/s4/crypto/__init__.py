"""Keys and what they do: the master key, keys of objects and who keeps them, encrypted segments, certificates and who
signs them."""
