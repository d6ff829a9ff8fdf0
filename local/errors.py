"""What can go wrong with a local service, as one sentence that says what to do next."""


class LocalServiceError(Exception):
    """A local Postgres or OpenBao can't run; the message is for the developer at the terminal."""
