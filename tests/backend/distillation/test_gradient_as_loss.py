"""A gradient turned into a loss must arrive unchanged at the latents."""

import torch

from backend.distillation.gradient import Gradient, as_loss


def test_the_gradient_of_the_loss_is_the_value_over_the_views_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    # Large latents and small gradients: where `x - (x - g)` would have lost half of the digits.
    latents = (1000 * torch.randn(4, 4, 8, 8, generator=generator)).requires_grad_()
    value = 1e-3 * torch.randn(4, 4, 8, 8, generator=generator)
    as_loss(latents, Gradient(value, {})).backward()
    assert latents.grad is not None and torch.equal(latents.grad, value / 4)


def test_it_is_the_reparametrized_loss() -> None:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(3, 2, 5, 5, generator=generator, dtype=torch.float64).requires_grad_()
    value = torch.randn(3, 2, 5, 5, generator=generator, dtype=torch.float64)
    target = (latents - value).detach()
    textbook = 0.5 * (latents - target).square().sum() / 3
    ours = as_loss(latents, Gradient(value, {}))
    torch.testing.assert_close(ours, textbook)
    torch.testing.assert_close(*(torch.autograd.grad(loss, latents)[0] for loss in (ours, textbook)))


def test_elements_that_are_not_finite_count_as_zero() -> None:
    latents = torch.zeros(1, 1, 1, 4, requires_grad=True)
    value = torch.tensor([[[[1.0, float("nan"), float("inf"), float("-inf")]]]])
    loss = as_loss(latents, Gradient(value, {}))
    loss.backward()
    assert loss.item() == 0.5
    assert latents.grad is not None and latents.grad.flatten().tolist() == [1.0, 0.0, 0.0, 0.0]
