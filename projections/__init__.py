"""What is made from the ledger, and only from it."""
