"""Letters reach a real mail server, or the reason why not is told."""
