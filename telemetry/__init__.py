"""What the house tells of itself: logs, traces and metrics, none with a value of a person."""
