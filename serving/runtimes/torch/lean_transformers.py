"""transformers, imported without the packages that it would import beside.

It takes in torchao, scipy and scikit-learn wherever they are installed, for features that no model
here uses: half a second and 50 MB of every replica. While they are hidden it finds that they are
missing, and keeps to that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

HIDDEN = ("torchao", "scipy", "sklearn")


@contextmanager
def _hidden() -> Iterator[None]:
    # Once the package itself is there, it has found them and counts on them.
    is_early = "transformers" not in sys.modules
    absent = [name for name in HIDDEN if is_early and name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


with _hidden():
    import transformers
    import transformers.modeling_utils  # asks for all of them; the package itself is lazy
    from transformers.initialization import no_init_weights

transformers.utils.logging.disable_progress_bar()

__all__ = ["no_init_weights", "transformers"]
