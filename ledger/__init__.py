"""The event store: one stream per env and exchange, appended a window at a time."""
