from torch import nn


class Tower(nn.Module):
    """Takes [tokens, adapter] and returns a list of the same form, as the towers of MMA's repository do."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, inputs):
        x, gsl = inputs[0], inputs[1]
        return [gsl(x + self.layer(x).relu()), gsl]


class CLIP(nn.Module):
    def __init__(self, resolution, width=32):
        super().__init__()
        self.patches = nn.Conv2d(3, width, resolution // 4, resolution // 4)
        self.visual, self.transformer = Tower(width), Tower(width)
        self.token_embedding = nn.Embedding(256, width)

    def encode_image(self, image, gsl):
        return self.visual([self.patches(image).flatten(2).mean(-1), gsl])

    def encode_text(self, tokens, gsl):
        return self.transformer([self.token_embedding(tokens).mean(1), gsl])
