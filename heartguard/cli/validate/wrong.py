"""What is said of an answer that is not as it should be."""


class Wrong(Exception):
    """The answer is not what the contract says; the message tells in what."""
