"""Entry points under the names of the guide."""
