"""What earlier runs say to a new launch: what it will need, what need not run again, what was cut off."""
