"""One file per screening; the contract, the planner and the registry they share."""
