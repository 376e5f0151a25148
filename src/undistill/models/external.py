"""Networks that other packages hold: timm's by name, the user's own by import path."""

from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from undistill.errors import InputError, require
from undistill.models.imports import import_callable


def timm_model(name: str, *, num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """A timm model with fresh weights.

    A model that is made for one image size (most transformers) is told the size of these images.

    Raises:
        InputError: timm has no such model, or it cannot take these images.
        MissingExtraError: timm is not installed.
    """
    timm = require("timm", "timm")
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? (" if near else "("
        raise InputError(f"unknown timm model {name!r}; {hint}timm.list_models() has them all)")
    settings: dict[str, Any] = {"num_classes": num_classes, "in_chans": input_shape[0]}
    try:
        published = timm.get_pretrained_cfg(name)
        if published is not None and published.fixed_input_size:
            settings["img_size"] = input_shape[1:]
        network = timm.create_model(name, pretrained=False, **settings)
    except Exception as error:
        raise InputError(
            f"timm cannot make {name!r} for input of shape {input_shape} ({type(error).__name__}: {error})."
        ) from error
    return _checked(network, f"timm:{name}", num_classes, input_shape)


def imported_model(path: str, *, num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """What the callable at ``path`` returns for ``num_classes`` and ``input_shape``.

    Raises:
        InputError: the callable cannot be imported, raises, does not return an ``nn.Module``, or the module does not
            give logits of shape (n, num_classes).
    """
    make = import_callable(path)
    try:
        network = make(num_classes=num_classes, input_shape=input_shape)
    except Exception as error:
        raise InputError(
            f"{path}(num_classes={num_classes}, input_shape={input_shape}) raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(network, nn.Module):
        raise InputError(f"{path!r} returned a {type(network).__name__}; it must return a torch.nn.Module.")
    return _checked(network, path, num_classes, input_shape)


@torch.no_grad()
def _checked(network: nn.Module, architecture: str, num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """``network``, after one image of zeros went through it in eval mode and came out as logits."""
    training = network.training
    try:
        logits = network.eval()(torch.zeros(1, *input_shape))
    except Exception as error:
        raise InputError(
            f"{architecture!r} cannot take images of shape {input_shape} ({type(error).__name__}: {error})."
        ) from error
    network.train(training)
    if not isinstance(logits, Tensor):
        raise InputError(f"{architecture!r} gives a {type(logits).__name__}; it must give one tensor of logits.")
    if logits.shape != (1, num_classes):
        raise InputError(
            f"{architecture!r} gives shape {tuple(logits.shape)} for one image; it must give (1, {num_classes}), "
            "one logit for each class."
        )
    return network
