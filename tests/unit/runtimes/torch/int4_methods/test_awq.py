"""AWQ's search, against every power that it may choose, computed from the inputs themselves."""

from __future__ import annotations

import pytest
import torch

from serving.runtimes.torch.int4_methods.awq import (
    POWERS,
    input_factors,
    output_error,
    round_by_awq,
)
from serving.runtimes.torch.int4_methods.rtn import round_to_nearest
from serving.runtimes.torch.kernels.int4_codes import as_stored
from tests.unit.runtimes.torch.int4_methods.layers import error_of, products_of, weight_and_inputs


def test_the_error_from_products_is_that_of_the_outputs() -> None:
    weight, rows = weight_and_inputs()
    codes = round_to_nearest(weight, 32, symmetric=False)
    found = output_error(codes, weight, products_of(rows))
    assert found == pytest.approx(error_of(codes, weight, rows), rel=1e-9)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_power_is_chosen(seed: int, symmetric: bool) -> None:
    weight, rows = weight_and_inputs(seed=seed)
    magnitudes = rows.abs().mean(0)
    errors = []
    for power in POWERS:
        factors = magnitudes.pow(power)
        factors = 1 / as_stored((factors.max() * factors.min()).sqrt() / factors)
        codes = round_to_nearest(weight * factors, 32, symmetric)
        wrong = rows / factors @ codes.expanded().T - rows @ weight.T
        errors.append(float(wrong.square().sum(1).mean()))
    found = round_by_awq(weight, magnitudes, products_of(rows), 32, symmetric)
    assert error_of(found, weight, rows) == pytest.approx(min(errors), rel=1e-6)
    assert min(errors) < errors[0]
    assert found.shares is not None


def test_one_strong_input_gets_finer_steps() -> None:
    weight, rows = weight_and_inputs()
    rows[:, 7] *= 50
    found = round_by_awq(weight, rows.abs().mean(0), products_of(rows), 32, symmetric=False)
    plain = round_to_nearest(weight, 32, symmetric=False)
    # 0.39 of it; the other inputs of its group pay for the finer steps.
    assert error_of(found, weight, rows) < 0.5 * error_of(plain, weight, rows)


def test_inputs_that_are_alike_are_left_as_they_are() -> None:
    weight, _ = weight_and_inputs()
    found = round_by_awq(weight, torch.ones(64).double(), torch.eye(64).double(), 32, False)
    assert found.shares is None


def test_factors_of_the_least_and_the_largest_are_inverse() -> None:
    factors = input_factors(torch.tensor([0.0, 0.1, 1.0, 40.0]), 0.5)
    assert float(factors.max() * factors.min()) == pytest.approx(1, rel=1e-6)
