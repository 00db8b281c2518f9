"""Load a pre-trained denoiser: bundled, or by its import path."""

from headstart.models.bundled import features
from headstart.models.classifier import Classifier
from headstart.models.load import load_denoiser
from headstart.models.unet import PatchUNet, Preconditioned

__all__ = ["Classifier", "PatchUNet", "Preconditioned", "features", "load_denoiser"]
