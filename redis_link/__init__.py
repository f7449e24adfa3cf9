"""The one way to Redis: URLs, bounded connections, a budget of waiting. Source: DESIGN.md 3, 5."""
