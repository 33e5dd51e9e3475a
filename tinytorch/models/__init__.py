"""Networks for images by name."""

from tinytorch.models.airbench import Airbench94
from tinytorch.models.alexnet import AlexNet, alexnet
from tinytorch.models.convnets import DigitsCNN, LeNet5, MNISTConvNet
from tinytorch.models.mlp import MLP
from tinytorch.models.mobilenet import MobileNetV2, mobilenet_v2
from tinytorch.models.registry import create, names, usual_shape
from tinytorch.models.resnet import ResNet, resnet18, resnet18_cifar, resnet34, resnet50, resnet101, resnet152
from tinytorch.models.unet import UNet, unet
from tinytorch.models.vgg import VGG, vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn, vgg19, vgg19_bn
from tinytorch.models.vit import PatchEmbedding

__all__ = [
    "MLP",
    "VGG",
    "Airbench94",
    "AlexNet",
    "DigitsCNN",
    "LeNet5",
    "MNISTConvNet",
    "MobileNetV2",
    "PatchEmbedding",
    "ResNet",
    "UNet",
    "alexnet",
    "create",
    "mobilenet_v2",
    "names",
    "resnet18",
    "resnet18_cifar",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "unet",
    "usual_shape",
    "vgg11",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
]
