"""Load a pre-trained denoiser, or the features that samples are judged by: bundled, from a file, by an import path."""

from headstart.models.bundled import features
from headstart.models.classifier import Classifier
from headstart.models.extract import load_features
from headstart.models.load import load_denoiser, load_latents
from headstart.models.unet import PatchUNet, Preconditioned

__all__ = ["Classifier", "PatchUNet", "Preconditioned", "features", "load_denoiser", "load_features", "load_latents"]
