"""The audit log: what is entered, how it is chained, vouched for, verified and exported."""
