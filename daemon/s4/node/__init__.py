"""The stores of one process with their partitions, as gateways see them: of one server's drives, or one of a
cluster's."""
