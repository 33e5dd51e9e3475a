"""The course's own names: tensors, autograd, layers, losses, optimizers, data loading and training."""
