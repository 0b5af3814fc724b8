"""What stands in the way of a rollout, found before anything is touched. `examine.examine` is the door."""
