"""The asktell server: proposes configurations, keeps observations, hands out leases."""
