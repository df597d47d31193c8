class SimpleTokenizer:
    """A token for each letter."""

    start, end = 256, 257

    def encode(self, text):
        return list(text.lower().encode())
