"""The decision core: pure rules, events, and the controller that folds them. No clock, no I/O."""
