"""Image data sets: `digits` comes with the library, others from a folder or a download, or are folders of pictures.

`load` gives an `ImageData`, whose images are arrays in memory, or for a folder of pictures a `FolderData`, which
decodes them when they are needed. `idx`, `cifar` and `digits` each read one format; `registry` knows the names,
`download` the network, `files` how to read what may be damaged.
"""

from tinytorch.datasets.folder import FolderData
from tinytorch.datasets.image_data import ImageData
from tinytorch.datasets.registry import load, names

__all__ = ["FolderData", "ImageData", "load", "names"]
