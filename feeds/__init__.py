"""Where windows of KPIs come from: the mock, files, and later Redis and WebSocket."""
