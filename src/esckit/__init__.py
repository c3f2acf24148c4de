"""esckit: build, align, measure and talk to emotional-support conversation models.

The public API is flat: every name of ``__init__.pyi`` can be had from here and is loaded when it is first used, so that
``import esckit`` takes no time and trees, corpora and measures need no torch. docs/python.md shows it at work.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
