"""Load a data set: bundled, arrays, image folders."""

from headstart.data.base import Dataset
from headstart.data.fashion_mnist import fashion_mnist
from headstart.data.load import load_arrays, load_data

__all__ = ["Dataset", "fashion_mnist", "load_arrays", "load_data"]
