"""Image data sets as arrays: `digits` comes with the library, the others from a folder or a download.

`load` gives an `ImageData`. `idx`, `cifar` and `digits` each read one format; `registry` knows the names,
`download` the network, `files` how to read what may be damaged.
"""

from tinytorch.datasets.image_data import ImageData
from tinytorch.datasets.registry import load, names

__all__ = ["ImageData", "load", "names"]
