"""Programs that run a bundle."""
