"""Heads: a latent vector to one property, each with its own scaling, loss and label mask."""

from genopt.nn.heads.autoencoder import AutoencoderHead
from genopt.nn.heads.base import Head, HeadKind, masked_mean
from genopt.nn.heads.by_name import HeadDict
from genopt.nn.heads.classification import ClassificationHead
from genopt.nn.heads.counts import CountHead
from genopt.nn.heads.heteroscedastic import HeteroscedasticHead
from genopt.nn.heads.ordinal import OrdinalHead
from genopt.nn.heads.regression import RegressionHead
from genopt.nn.heads.sequence import SequenceHead

HEADS = {
    "regression": "genopt.nn.heads.RegressionHead",
    "heteroscedastic": "genopt.nn.heads.HeteroscedasticHead",
    "classification": "genopt.nn.heads.ClassificationHead",
    "ordinal": "genopt.nn.heads.OrdinalHead",
    "count": "genopt.nn.heads.CountHead",
    "sequence": "genopt.nn.heads.SequenceHead",
    "autoencoder": "genopt.nn.heads.AutoencoderHead",
}

__all__ = [
    "HEADS",
    "AutoencoderHead",
    "ClassificationHead",
    "CountHead",
    "Head",
    "HeadDict",
    "HeadKind",
    "HeteroscedasticHead",
    "OrdinalHead",
    "RegressionHead",
    "SequenceHead",
    "masked_mean",
]
