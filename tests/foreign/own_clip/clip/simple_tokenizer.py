class SimpleTokenizer:
    """A token for each letter."""

    def encode(self, text):
        return list(text.encode())
