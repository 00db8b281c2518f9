"""A small convolutional classifier of Fashion-MNIST, whose penultimate features the Fréchet distance is measured in.

The Fréchet distance of images is usually measured in the features of an Inception network trained on photographs. For
28x28 grey images a classifier of the data's own classes sees more, and is small enough to be bundled.

References:
    Heusel et al., *GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium*, NeurIPS 2017.
"""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Classifier"]


class Classifier(nn.Module):
    """Images (B, 1, 28, 28) to the logits of their classes (B, 10).

    Arguments:
        classes: number of classes.
        width: number of penultimate features.
        dropout: share of the penultimate features that is dropped while training.
    """

    def __init__(self, classes: int = 10, width: int = 64, dropout: float = 0.2) -> None:
        super().__init__()
        self.stages = nn.Sequential(
            stage(1, 32, kernel=5, stride=2),
            stage(32, 64),
            nn.MaxPool2d(2),
            stage(64, 96),
            nn.MaxPool2d(2),
        )
        self.hidden = nn.Linear(96 * 3 * 3, width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)

    def features(self, x: Tensor) -> Tensor:
        """The penultimate features, (B, width), at least 0."""
        hidden: Tensor = self.hidden(self.stages(x).flatten(1))
        return hidden.relu()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.features(x)))
        return logits


def stage(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalization and ReLU."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
