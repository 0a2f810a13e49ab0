"""The adapters between epsilon, x0, v and flow velocity, against a sample whose every part is known."""

import torch

from backend.priors.prior import (
    add_noise,
    epsilon_from_flow,
    epsilon_from_v,
    epsilon_from_x0,
    flow_time,
    x0_from_epsilon,
)

GENERATOR = torch.Generator().manual_seed(0)
X0 = torch.randn(4, 3, 5, 5, generator=GENERATOR, dtype=torch.float64)
EPSILON = torch.randn(4, 3, 5, 5, generator=GENERATOR, dtype=torch.float64)
ALPHA_BARS = [torch.tensor(abar, dtype=torch.float64) for abar in (0.999, 0.7, 0.5, 0.1, 0.001)]


def test_noise_keeps_unit_variance() -> None:
    generator = torch.Generator().manual_seed(1)
    x, noise = torch.randn(2, 200_000, generator=generator, dtype=torch.float64)
    for alpha_bar in ALPHA_BARS:
        assert abs(add_noise(x, noise, alpha_bar).var().item() - 1) < 0.01


def test_the_limits_of_noise() -> None:
    assert torch.equal(add_noise(X0, EPSILON, torch.tensor(1.0, dtype=torch.float64)), X0)
    assert torch.equal(add_noise(X0, EPSILON, torch.tensor(0.0, dtype=torch.float64)), EPSILON)


def test_x0_and_epsilon_are_recovered_from_each_other() -> None:
    for alpha_bar in ALPHA_BARS:
        noisy = add_noise(X0, EPSILON, alpha_bar)
        torch.testing.assert_close(x0_from_epsilon(noisy, EPSILON, alpha_bar), X0)
        torch.testing.assert_close(epsilon_from_x0(noisy, X0, alpha_bar), EPSILON)


def test_epsilon_from_v_is_the_rotation_by_the_noise_angle() -> None:
    """With phi = atan(sigma / alpha), x_t and v are (x, epsilon) turned by phi (Salimans and Ho 2022, appendix D)."""
    for alpha_bar in ALPHA_BARS:
        phi = torch.atan2((1 - alpha_bar).sqrt(), alpha_bar.sqrt())
        noisy = phi.cos() * X0 + phi.sin() * EPSILON
        v = phi.cos() * EPSILON - phi.sin() * X0
        torch.testing.assert_close(epsilon_from_v(noisy, v, alpha_bar), EPSILON)


def test_a_flow_model_serves_the_variance_preserving_process() -> None:
    """Asked at (x_t / (alpha + sigma), s) it sees exactly its own straight path, and its velocity gives epsilon."""
    for alpha_bar in ALPHA_BARS:
        noisy = add_noise(X0, EPSILON, alpha_bar)
        s = flow_time(alpha_bar)
        on_path = noisy / (alpha_bar.sqrt() + (1 - alpha_bar).sqrt())
        torch.testing.assert_close(on_path, (1 - s) * X0 + s * EPSILON)
        torch.testing.assert_close(epsilon_from_flow(noisy, EPSILON - X0, alpha_bar), EPSILON)
