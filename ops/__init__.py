"""What an operator installs beside the controller: alerts, a dashboard, units."""
