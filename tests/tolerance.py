"""How far two right computations of one figure may lie apart, on any processor and with any number of threads."""

import torch


def tolerance(dtype: torch.dtype = torch.float32, tokens: int = 1) -> float:
    """Of a log-probability of so many tokens, in nats, and of any other figure relative to its size.

    A token's is the end of some tens of sums of up to a hundred products (two layers, the head, the normaliser) of
    numbers up to about 8, which processors add up in orders of their own: 256 roundings, one beside the other. Tokens
    err apart from each other, so that their sum errs by the root of their number.
    """
    return float(256 * torch.finfo(dtype).eps * tokens**0.5)
