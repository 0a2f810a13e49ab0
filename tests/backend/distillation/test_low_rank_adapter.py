"""VSD's second network: what it changes, what it leaves alone to the bit, and where its gradients go."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn

from backend.cameras.orbit import Cameras
from backend.distillation.denoiser import Denoiser, Remembering
from backend.distillation.guidance import Guidance
from backend.distillation.low_rank_adapter import LowRankAdapter, camera_numbers, rows_for_batch
from backend.distillation.vsd import vsd
from backend.errors import InputError
from backend.priors.analytic import Component, GaussianMixturePrior
from backend.priors.prior import Views
from tests.backend.distillation.tiny_networks import SIDE, Kind, TinyPrior, denoiser_of

KINDS: tuple[Kind, ...] = ("unet", "v unet", "multi-view unet", "transformer")
GENERATOR = torch.Generator().manual_seed(0)
LATENTS, NOISE = torch.randn(2, 4, 4, SIDE, SIDE, generator=GENERATOR)
T = torch.tensor(300)


@pytest.fixture(params=KINDS)
def prior(request: pytest.FixtureRequest) -> TinyPrior:
    return TinyPrior(request.param)


@pytest.fixture
def unet() -> TinyPrior:
    return TinyPrior("unet")


def trained(adapter: LowRankAdapter, denoiser: Denoiser, steps: int = 3, latents: Tensor = LATENTS) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-2)
    train(adapter, denoiser, optimizer, range(steps), latents)
    return optimizer


def train(adapter: LowRankAdapter, denoiser: Denoiser, optimizer: torch.optim.Optimizer, steps: range, latents: Tensor) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        t, noise = torch.randint(0, 1000, (), generator=generator), torch.randn(latents.shape, generator=generator)
        loss = adapter.loss(latents, denoiser, t, noise, drop_camera=step % 5 == 4)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def answers(denoiser: Denoiser) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return denoiser(LATENTS, T, "text", "negative") + denoiser(LATENTS, T, "plain")


def same(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_prior_answers_with_the_same_bits_while_the_adapter_learns(prior: TinyPrior) -> None:
    denoiser = denoiser_of(prior)
    before = answers(denoiser)
    adapter = LowRankAdapter(prior, 4, seed=0)
    assert same(answers(denoiser), before)
    assert torch.equal(adapter.predict(denoiser, LATENTS, T), before[2]), "it starts as the prior, asked plainly"
    trained(adapter, denoiser)
    assert not torch.allclose(adapter.predict(denoiser, LATENTS, T), before[2], rtol=1e-3)
    assert same(answers(denoiser), before)
    adapter.remove()
    assert same(answers(denoiser), before)


def test_a_denoiser_that_remembers_does_not_confuse_the_two(unet: TinyPrior) -> None:
    denoiser = denoiser_of(unet)
    adapter = LowRankAdapter(unet, 4, seed=0)
    trained(adapter, denoiser)
    learned, remembering = adapter.predict(denoiser, LATENTS, T), Remembering.of(denoiser)
    with torch.no_grad():
        (plain,) = remembering(LATENTS, T, "plain")
        assert torch.equal(adapter.predict(remembering, LATENTS, T), learned)
        assert torch.equal(remembering(LATENTS, T, "plain")[0], plain) and not torch.equal(plain, learned)


def attention_projections(network: nn.Module) -> set[str]:
    """Every linear layer of diffusers' attention modules, found by class instead of by name."""
    return {
        f"{name}.{inner}"
        for name, module in network.named_modules()
        if type(module).__name__ == "Attention"
        for inner, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    }


def test_every_projection_of_attention_is_adapted_and_takes_part(prior: TinyPrior) -> None:
    """One layer at a time: with its `up` weights alone not zero, the answer is another one."""
    expected = attention_projections(prior.network)
    denoiser = denoiser_of(prior)
    adapter = LowRankAdapter(prior, 2, seed=0)
    start = adapter.state_dict()
    assert {name.removesuffix(".up") for name in start if name.endswith(".up")} == expected
    before = adapter.predict(denoiser, LATENTS, T)
    unheard = set()
    for name in expected:
        adapter.load_state_dict(start | {f"{name}.up": torch.ones_like(start[f"{name}.up"])})
        if torch.equal(adapter.predict(denoiser, LATENTS, T), before):
            unheard.add(name)
    # The last block of the transformer computes queries of the text whose answers it does not use.
    assert unheard == ({"transformer_blocks.1.attn.add_q_proj"} if prior.kind == "transformer" else set())


def test_the_adapter_works_inside_attention_across_views() -> None:
    """What is changed in one view's latents reaches the others through the adapted layers, in a group and not beyond it."""
    prior = TinyPrior("multi-view unet")
    denoiser = denoiser_of(prior, views=8)
    adapter = LowRankAdapter(prior, 4, seed=0)
    latents = LATENTS.repeat(2, 1, 1, 1)
    trained(adapter, denoiser, latents=latents)
    changed = latents.clone()
    changed[1] += 1
    moved = (adapter.predict(denoiser, changed, T) - adapter.predict(denoiser, latents, T)).abs().amax(dim=(1, 2, 3))
    assert (moved[:4] > 0).all() and (moved[4:] == 0).all()


def with_camera(adapter: LowRankAdapter) -> LowRankAdapter:
    """`adapter`, its camera network no longer zero."""
    generator = torch.Generator().manual_seed(1)
    state = adapter.state_dict()
    camera = {name: torch.randn(value.shape, generator=generator) for name, value in state.items() if name.startswith("camera.")}
    adapter.load_state_dict(state | camera)
    return adapter


def test_the_camera_is_added_to_the_time_embedding(prior: TinyPrior) -> None:
    """The network's own embedding plus Linear-SiLU-Linear of the 16 numbers, computed by hand; zeros where it is dropped."""
    denoiser, seen = denoiser_of(prior), []
    with torch.no_grad():
        handle = prior.time_embedding.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
        denoiser(LATENTS, T, "plain")
        handle.remove()
    adapter = with_camera(LowRankAdapter(prior, 4, seed=0))
    prior.time_embedding.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    adapter.predict(denoiser, LATENTS, T)
    adapter.loss(LATENTS, denoiser, T, NOISE, drop_camera=True)
    state = adapter.state_dict()
    w1, b1, w2, b2 = (state[f"camera.{name}"] for name in ("0.weight", "0.bias", "2.weight", "2.bias"))

    def embedded(numbers: Tensor) -> Tensor:
        return torch.nn.functional.silu(numbers @ w1.T + b1) @ w2.T + b2

    torch.testing.assert_close(seen[1] - seen[0], embedded(camera_numbers(denoiser.views.cameras)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(seen[2] - seen[0], embedded(torch.zeros(4, 16)), rtol=1e-4, atol=1e-4)


def test_cameras_are_told_without_their_distance() -> None:
    numbers = camera_numbers(Cameras.orbit([0.0, 90.0], 30.0, distance=2.5))
    half, root = 0.5, 3**0.5 / 2
    front = [[1, 0, 0, 0], [0, root, half, half], [0, -half, root, root], [0, 0, 0, 1]]
    torch.testing.assert_close(numbers[0].reshape(4, 4), torch.tensor(front))
    torch.testing.assert_close(numbers, camera_numbers(Cameras.orbit([0.0, 90.0], 30.0, distance=4.0)))


def test_rows_of_cameras_for_any_batch() -> None:
    camera = torch.arange(1.0, 9.0)[:, None]
    assert rows_for_batch(camera, 8, 4).flatten().tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert rows_for_batch(camera, 10, 4).flatten().tolist() == [1, 2, 3, 4, 0, 5, 6, 7, 8, 0], "a reference after each group"
    four = [1, 2, 3, 4, 0, 0, 0, 0, 5, 6, 7, 8, 0, 0, 0, 0]
    assert rows_for_batch(camera, 16, 4).flatten().tolist() == four, "as many references as views"


def test_the_loss_is_the_denoising_error_and_its_gradient_the_slope(prior: TinyPrior) -> None:
    """Against the difference quotient along a random direction, with the prior's own arithmetic in float64."""
    prior.network.double()
    prior.dtype, prior.texts, prior.alphas_cumprod = torch.float64, prior.texts.double(), prior.alphas_cumprod.double()
    denoiser = denoiser_of(prior)
    adapter = LowRankAdapter(prior, 2, seed=0)
    latents, noise = LATENTS.double(), NOISE.double()
    trained(adapter, denoiser, 1, latents)
    loss = adapter.loss(latents, denoiser, T, noise, drop_camera=False)
    abar = prior.alphas_cumprod[T]
    error = adapter.predict(denoiser, abar.sqrt() * latents + (1 - abar).sqrt() * noise, T) - noise
    torch.testing.assert_close(loss.detach(), error.square().mean())
    gradients = torch.autograd.grad(loss, adapter.parameters())
    generator, state, step = torch.Generator().manual_seed(2), adapter.state_dict(), 2**-8
    direction = [torch.randn(value.shape, generator=generator) for value in state.values()]

    def moved(step: float) -> float:
        adapter.load_state_dict({name: value + step * d for (name, value), d in zip(state.items(), direction)})
        return float(adapter.loss(latents, denoiser, T, noise, drop_camera=False).detach())

    # Richardson's extrapolation: the error of the quotient is of fourth order.
    near, far = ((moved(h) - moved(-h)) / (2 * h) for h in (step, 2 * step))
    slope = sum((gradient * d).sum().item() for gradient, d in zip(gradients, direction))
    assert slope == pytest.approx((4 * near - far) / 3, rel=2e-3)


def test_gradients_reach_the_adapter_alone(unet: TinyPrior) -> None:
    adapter, latents = LowRankAdapter(unet, 4, seed=0), LATENTS.clone().requires_grad_()
    loss = adapter.loss(latents, denoiser_of(unet), T, NOISE, drop_camera=False)
    (3 * loss).backward()
    once = [weight.grad.clone() for weight in adapter.parameters()]
    assert latents.grad is None
    own = {id(weight) for weight in adapter.parameters()}
    assert all(weight.grad is None for weight in unet.network.parameters() if id(weight) not in own)
    for weight in adapter.parameters():
        weight.grad = None
    adapter.loss(latents, denoiser_of(unet), T, NOISE, drop_camera=False).backward()
    for weight, three in zip(adapter.parameters(), once):
        torch.testing.assert_close(3 * weight.grad, three)
    assert any(weight.grad.abs().max() > 0 for weight in adapter.parameters())


def test_gradient_checkpointing_changes_no_gradient(unet: TinyPrior) -> None:
    """It runs blocks of the network anew during the backward pass, when they must still be the adapted ones."""
    denoiser, gradients = denoiser_of(unet), []
    adapter = LowRankAdapter(unet, 4, seed=0)
    trained(adapter, denoiser)
    for checkpointing in (False, True):
        if checkpointing:
            unet.network.enable_gradient_checkpointing()
        loss = adapter.loss(LATENTS, denoiser, T, NOISE, drop_camera=False)
        gradients.append(torch.autograd.grad(loss, adapter.parameters()))
    assert any(module.gradient_checkpointing for module in unet.network.modules() if hasattr(module, "gradient_checkpointing"))
    for plain, checkpointed in zip(*gradients):
        torch.testing.assert_close(plain, checkpointed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_adapter_of_a_half_precision_prior_learns_in_float32(dtype: torch.dtype) -> None:
    """Its gradient is that of float32 to a few percent."""
    latents, noise = torch.randn(2, 8, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    found = []
    for kind in (torch.float32, dtype):
        prior = TinyPrior("unet", kind)
        denoiser = denoiser_of(prior, 8)
        before = answers_of(denoiser, latents)
        adapter = LowRankAdapter(prior, 4, seed=0)
        assert {weight.dtype for weight in adapter.parameters()} == {torch.float32}
        assert torch.equal(answers_of(denoiser, latents), before)
        gradients = torch.autograd.grad(adapter.loss(latents, denoiser, T, noise, drop_camera=False), adapter.parameters())
        found.append(torch.cat([gradient.flatten() for gradient in gradients]))
    exact, half = found
    assert half.dtype == torch.float32
    assert (half - exact).norm() < (0.02 if dtype == torch.float16 else 0.1) * exact.norm()


@pytest.mark.parametrize("views", [1, 16])
def test_the_gradient_enters_the_network_in_the_size_of_the_error(unet: TinyPrior, views: int) -> None:
    """And not as that of a mean over all elements, most of which would be below the smallest number of float16 at 512 px."""
    entered: list[Tensor] = []

    def watch(module: nn.Module, inputs: object, output: UNet2DConditionOutput) -> None:
        output.sample.register_hook(entered.append)

    handle = unet.network.register_forward_hook(watch)
    adapter, latents = LowRankAdapter(unet, 4, seed=0), LATENTS[:1].expand(views, -1, -1, -1)
    loss = adapter.loss(latents, denoiser_of(unet, views), T, NOISE[:1].expand(views, -1, -1, -1), drop_camera=False)
    handle.remove()
    assert entered[0].square().mean().item() == pytest.approx(4 * loss.item(), rel=0.01)


def answers_of(denoiser: Denoiser, latents: Tensor) -> Tensor:
    with torch.no_grad():
        return denoiser(latents, T, "text")[0]


def test_elements_that_are_not_finite_do_not_destroy_the_adapter(unet: TinyPrior) -> None:
    adapter, latents = LowRankAdapter(unet, 4, seed=0), LATENTS.clone()
    latents[0, 0, 0, 0] = float("nan")
    adapter.loss(latents, denoiser_of(unet), T, NOISE, drop_camera=False).backward()
    assert all(weight.grad.isfinite().all() for weight in adapter.parameters())


def test_a_seed_repeats_the_weights_and_global_generators_are_left_alone(unet: TinyPrior) -> None:
    state, weights = torch.get_rng_state(), []
    for seed in (0, 0, 1):
        adapter = LowRankAdapter(unet, 4, seed)
        weights.append(adapter.state_dict())
        adapter.remove()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    drawn = {name for name in weights[0] if name.endswith(".down") or name.startswith("camera.0")}
    for name in weights[0]:
        assert torch.equal(weights[0][name], weights[2][name]) == (name not in drawn)
        assert name in drawn or weights[0][name].abs().max() == 0


def test_saved_and_restored_it_goes_on_bit_for_bit() -> None:
    ends = []
    for stop in (None, 3):
        prior = TinyPrior("multi-view unet")
        denoiser = denoiser_of(prior)
        adapter = LowRankAdapter(prior, 4, seed=0)
        optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-2)
        train(adapter, denoiser, optimizer, range(stop or 6), LATENTS)
        if stop:
            state = copy.deepcopy((adapter.state_dict(), optimizer.state_dict()))
            adapter.remove()
            adapter = LowRankAdapter(prior, 4, seed=5)
            optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-2)
            adapter.load_state_dict(state[0])
            optimizer.load_state_dict(state[1])
            train(adapter, denoiser, optimizer, range(stop, 6), LATENTS)
        ends.append(adapter.state_dict())
    assert list(ends[0]) == list(ends[1]) and same(tuple(ends[0].values()), tuple(ends[1].values()))


def test_what_is_saved_is_the_adapter_and_nothing_of_the_prior(unet: TinyPrior) -> None:
    names = {f"{name}.{part}" for name in attention_projections(unet.network) for part in ("up", "down")}
    adapter = LowRankAdapter(unet, 4, seed=0)
    state = adapter.state_dict()
    assert set(state) == names | {f"camera.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")}
    assert all(type(value) is Tensor and not value.requires_grad for value in state.values())
    adapter.parameters()[0].data.add_(1)
    assert not torch.equal(next(iter(state.values())), adapter.parameters()[0]), "a copy"


def inside(network: nn.Module) -> tuple[object, ...]:
    """Everything that an adapter could leave behind in a network."""
    modules = [(name, id(module), module.training, tuple(vars(module))) for name, module in network.named_modules()]
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules()]
    weights = [(name, id(weight), weight.requires_grad) for name, weight in network.named_parameters()]
    return modules, hooks, weights


def test_removed_it_leaves_the_prior_as_it_was(prior: TinyPrior) -> None:
    next(prior.network.parameters()).requires_grad_(True)
    before = inside(prior.network)
    for _ in range(2):
        adapter = LowRankAdapter(prior, 4, seed=0)
        assert inside(prior.network) != before
        adapter.remove()
        assert inside(prior.network) == before


def test_a_failing_prior_leaves_the_adapter_off(unet: TinyPrior) -> None:
    denoiser = denoiser_of(unet)
    before = answers(denoiser)
    adapter = LowRankAdapter(unet, 4, seed=0)
    trained(adapter, denoiser)
    with pytest.raises(RuntimeError):
        adapter.predict(denoiser, LATENTS[:, :2], T)
    assert same(answers(denoiser), before)


def test_bad_input_is_refused_in_a_sentence(unet: TinyPrior) -> None:
    analytic = GaussianMixturePrior({"it": Component(torch.zeros(1, 3, 2, 2), 0.1)}, unet.alphas_cumprod)
    with pytest.raises(InputError, match="'analytic' has no network. Choose another"):
        LowRankAdapter(analytic, 4, seed=0)
    adapter = LowRankAdapter(unet, 4, seed=0)
    with pytest.raises(InputError, match="'tiny' holds an adapter already"):
        LowRankAdapter(unet, 4, seed=0)
    state = adapter.state_dict()
    adapter.remove()
    with pytest.raises(InputError, match="of another rank or of another prior"):
        LowRankAdapter(unet, 8, seed=0).load_state_dict(state)
    plain = TinyPrior("unet")
    plain.network = plain.time_embedding
    before = inside(plain.network)
    with pytest.raises(InputError, match="adapts attention, and the network of the prior 'tiny' has none"):
        LowRankAdapter(plain, 4, seed=0)
    assert inside(plain.network) == before


def test_vsd_with_an_untrained_adapter_is_the_guidance_direction(prior: TinyPrior) -> None:
    """(s - 1) (eps_text - eps_negative) + (eps_text - eps_plain): the last term is what the words for the view add."""
    denoiser = denoiser_of(prior)
    adapter = LowRankAdapter(prior, 4, seed=0)
    abar = prior.alphas_cumprod[T]
    noisy = abar.sqrt() * LATENTS + (1 - abar).sqrt() * NOISE
    with torch.no_grad():
        text, negative, plain = denoiser(noisy, T, "text", "negative", "plain")
    value = vsd(LATENTS, denoiser, adapter, T, NOISE, Guidance(7.5, 0.0, "uniform")).value
    torch.testing.assert_close(value, 6.5 * (text - negative) + (text - plain), rtol=1e-4, atol=1e-5)


def test_views_need_not_be_the_training_ones(unet: TinyPrior) -> None:
    """One adapter serves objects, groups and cameras of any number."""
    adapter = with_camera(LowRankAdapter(unet, 4, seed=0))
    one = Denoiser(unet, denoiser_of(unet).conditioning, Views(Cameras.orbit([90.0], 15.0), torch.ones(1, 3)))
    alone = adapter.predict(one, LATENTS[1:2], T)
    torch.testing.assert_close(alone, adapter.predict(denoiser_of(unet), LATENTS, T)[1:2], rtol=1e-4, atol=1e-5)
