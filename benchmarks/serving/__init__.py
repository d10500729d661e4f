"""What the service takes and bears: speed beside bare databases, cost with long histories, waiting, crowds, leases."""
