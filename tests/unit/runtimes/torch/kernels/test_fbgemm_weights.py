from __future__ import annotations

import pytest
import torch

from serving.errors import ConfigError
from serving.runtimes.torch.kernels import fbgemm_weights
from serving.runtimes.torch.kernels.fbgemm_weights import check_weights, quantize_per_output


def test_weights_of_another_cpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    eight_bits, _ = quantize_per_output(torch.randn(8, 16), 127)
    seven_bits, _ = quantize_per_output(torch.randn(8, 16), 64)
    monkeypatch.setattr(fbgemm_weights, "multiplies_int8_exactly", lambda: False)
    check_weights(seven_bits)
    with pytest.raises(ConfigError, match="prepare it on a machine of this kind"):
        check_weights(eight_bits)
    monkeypatch.setattr(fbgemm_weights, "multiplies_int8_exactly", lambda: True)
    check_weights(eight_bits)
