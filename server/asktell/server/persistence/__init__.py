"""The database: SQLite for one server, PostgreSQL for several. The only place that writes SQL."""
