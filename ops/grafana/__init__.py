"""The dashboard, and what it is made from."""
