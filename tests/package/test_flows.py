"""What every flow promises, over all flows, dimensions and dtypes; then what each one promises by itself."""

import copy
import inspect
import math
import shutil
from collections.abc import Callable
from itertools import pairwise, product
from operator import attrgetter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, TransformedDistribution
from torch.distributions.transforms import AffineTransform
from torch.func import jacrev, vmap
from torch.multiprocessing import spawn
from torch.utils.flop_counter import FlopCounterMode

from mnf_lite import flows
from mnf_lite.flows import (
    IAF,
    MAF,
    ActNorm,
    AdditiveCoupling,
    AffineConstant,
    AffineCoupling,
    Compose,
    Exp,
    Flow,
    GatedCoupling,
    InvertibleLinear,
    NormalizingFlow,
    Planar,
    Radial,
    Sigmoid,
    SplineAutoregressive,
    SplineCoupling,
)
from mnf_lite.flows.planar import solve_tanh
from mnf_lite.flows.spline import Spline

# Whatever flow the package offers is tested; those that take a parity have a network and take a context.
OFFERED: list[Callable[..., Flow]] = [
    kind
    for kind in (getattr(flows, name) for name in flows.__all__)
    if inspect.isclass(kind) and issubclass(kind, Flow) and kind not in (Flow, Compose)
]
BOUNDED: list[Callable[..., Flow]] = [Sigmoid, Exp]
WITH_PARITY = [kind for kind in OFFERED if "parity" in inspect.signature(kind).parameters]
WITHOUT_PARITY = [kind for kind in OFFERED if kind not in (*WITH_PARITY, *BOUNDED)]
EVERY = WITHOUT_PARITY + WITH_PARITY + BOUNDED
FREE = ("AffineConstant", "ActNorm", "InvertibleLinear")  # their log-scales are free parameters
name_of = attrgetter("__name__")
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


class Given(Flow):
    """A conditional flow given one context: the promises of all flows hold for it too."""

    context_: Tensor

    def __init__(self, flow: Flow) -> None:
        super().__init__(flow.dim)
        self.flow = flow
        self.register_buffer("context_", torch.linspace(-1, 1, flow.context))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.flow(z, self.context_)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.flow.inverse(x, self.context_)


FLOWS: dict[str, Callable[[int], Flow]] = {make.__name__: make for make in EVERY}
FLOWS["AffineCoupling-shared"] = lambda dim: AffineCoupling(dim, shared=True)
FLOWS |= {f"{make.__name__}-odd": lambda dim, make=make: make(dim, parity=1) for make in WITH_PARITY}
FLOWS |= {
    f"{make.__name__}-given": lambda dim, make=make: Given(make(dim, context=3)) for make in WITH_PARITY
}
# One coordinate has no other to look at, two are the plane of the book, five make halves of unequal size.
DIMS = {"given": (1, 5), "odd": (5,), "shared": (5,)}
CASES = [(name, dim) for name in FLOWS for dim in DIMS.get(name.rpartition("-")[2], (1, 2, 5))]

pytestmark = pytest.mark.usefixtures("seed")
each_flow = pytest.mark.parametrize("name", list(FLOWS))
each_flow_and_dim = pytest.mark.parametrize(
    ("name", "dim"), CASES, ids=[f"{name}-dim{dim}" for name, dim in CASES]
)


def make(name: str, dim: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Flow:
    """A flow away from its initial values."""
    torch.manual_seed(seed)
    flow = FLOWS[name](dim).to(dtype)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return flow


def points(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    """Points that fall inside and outside of a spline's box."""
    return 2 * torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def directions(flow: Flow, z: Tensor) -> list[tuple[Callable[[Tensor], tuple[Tensor, Tensor]], Tensor]]:
    """Both maps of a flow, each with points that it can map: a bounded flow's inverse takes bounded ones."""
    return [(flow, z), (flow.inverse, flow(z)[0].detach() if type(flow) in BOUNDED else z)]


def log_abs_det(f: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """``log|det|`` of the Jacobian of the map ``f`` at points ``x [B, dim]``, by autograd: ``[B]``."""
    return torch.linalg.slogdet(vmap(jacrev(lambda point: f(point)[0]))(x)).logabsdet


class TestEveryFlow:
    @each_flow
    def test_shapes_and_dtypes_follow_the_input(self, name):
        for dtype in (torch.float64, torch.float32):
            flow = make(name, 3, dtype)
            for batch in ((), (4,), (2, 0), (2, 3)):
                for direction, a in directions(flow, points(*batch, 3, dtype=dtype)):
                    b, log_det = direction(a)
                    assert b.shape == (*batch, 3)
                    assert log_det.shape == batch
                    assert b.dtype == log_det.dtype == dtype

    @each_flow_and_dim
    def test_each_direction_undoes_the_other(self, name, dim):
        for dtype, tolerance in TOLERANCE.items():
            flow = make(name, dim, dtype)
            (there, a), (back, b) = directions(flow, points(64, dim, dtype=dtype))
            for first, second, start in ((there, back, a), (back, there, b)):
                middle, log_det = first(start)
                again, log_det_back = second(middle)
                torch.testing.assert_close(again, start, rtol=0, atol=tolerance)
                torch.testing.assert_close(log_det_back, -log_det, rtol=0, atol=tolerance)

    @each_flow_and_dim
    def test_log_det_equals_autograd(self, name, dim):
        for direction, a in directions(make(name, dim), points(12, dim)):
            torch.testing.assert_close(direction(a)[1], log_abs_det(direction, a), rtol=0, atol=1e-9)

    @each_flow
    def test_log_det_of_single_precision_is_that_of_double(self, name):
        double, single = make(name, 5), make(name, 5).float()
        for (one, a), (other, _) in zip(
            directions(double, points(64, 5)), directions(single, points(64, 5).float()), strict=True
        ):
            torch.testing.assert_close(other(a.float())[1].double(), one(a)[1], rtol=0, atol=2e-4)

    @each_flow_and_dim
    def test_every_parameter_has_a_gradient(self, name, dim):
        flow = make(name, dim)
        for direction, a in directions(flow, points(64, dim)):
            flow.zero_grad()
            b, log_det = direction(a.requires_grad_())
            ((b * points(64, dim, seed=2)).sum() + log_det.sum()).backward()
            for key, parameter in flow.named_parameters():
                assert parameter.grad is not None, key
                assert parameter.grad.isfinite().all(), key
                # In one dimension there is nothing to condition on or to mix: some weights meet only zeros.
                assert dim == 1 or parameter.grad.any(), key

    @each_flow
    def test_the_input_is_left_alone(self, name):
        for direction, x in directions(make(name, 3), points(8, 3)):
            before = x.clone()
            direction(x)
            assert torch.equal(x, before)

    @each_flow
    def test_a_saved_state_in_a_fresh_flow_gives_the_same_bits(self, name, tmp_path):
        flow, fresh = make(name, 3), FLOWS[name](3).double()
        flow.inverse(points(8, 3).sigmoid())
        save_file(flow.state_dict(), tmp_path / "flow.safetensors")
        fresh.load_state_dict(load_file(tmp_path / "flow.safetensors"))
        for (one, a), (other, _) in zip(
            directions(flow, points(8, 3)), directions(fresh, points(8, 3)), strict=True
        ):
            for expected, got in zip(one(a), other(a), strict=True):
                assert torch.equal(expected, got)

    @each_flow
    def test_a_deep_copy_shares_nothing(self, name):
        flow, x = make(name, 3), points(8, 3)
        before = flow(x)[0]
        other = copy.deepcopy(flow)
        assert torch.equal(other(x)[0], before)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(1)
        assert torch.equal(flow(x)[0], before)
        assert not list(flow.parameters()) or not torch.equal(other(x)[0], before)

    @each_flow
    def test_vmap_gives_what_the_batch_gives(self, name):
        flow = make(name, 3).eval()
        for direction, x in directions(flow, points(8, 3)):
            for mapped, batched in zip(vmap(direction)(x), direction(x), strict=True):
                torch.testing.assert_close(mapped, batched)

    @each_flow
    def test_the_density_integrates_to_one(self, name):
        model = NormalizingFlow(make(name, 2))
        step, edge = (0.002, 1) if name == "Sigmoid" else (0.06, 60 if name == "Exp" else 12)
        side = torch.arange(0 if edge != 12 else -12, edge, step, dtype=torch.float64) + step / 2
        with torch.no_grad():
            total = model.log_prob(torch.cartesian_prod(side, side)).exp().sum() * step**2
        assert float(total) == pytest.approx(1, abs=2e-3)

    @each_flow_and_dim
    def test_far_points_and_edges_give_finite_values_and_gradients(self, name, dim):
        numbers = [0, 3, -3, 1e4, -1e4, 3 + 1e-6, 1e-30]
        if name in ("Sigmoid", "Exp"):  # which leave the range of numbers sooner
            numbers = [0, 3, -3, 15, -15, 1e-30]
        for dtype in (torch.float64, torch.float32):
            for direction, x in directions(
                make(name, dim, dtype), torch.tensor(numbers, dtype=dtype)[:, None].repeat(1, dim)
            ):
                self.check_finite(direction, x)

    @pytest.mark.parametrize(
        ("name", "dim"),
        [case for case in CASES if case[0] not in (*FREE, "Sigmoid", "Exp")],
        ids=[f"{name}-dim{dim}" for name, dim in CASES if name not in (*FREE, "Sigmoid", "Exp")],
    )
    def test_saturated_parameters_give_finite_values_and_gradients(self, name, dim):
        for dtype, k, seed in product((torch.float64, torch.float32), (0, 1), range(3)):
            # Every x_i is scaled up from the ones before it: the true x leaves the range of single precision.
            if dtype == torch.float32 and (name[:3], k) in (("MAF", 0), ("IAF", 1)) and dim > 2:
                continue
            flow = make(name, dim, dtype, seed)
            with torch.no_grad():
                for parameter in flow.parameters():
                    parameter.mul_(1000)
            x = points(64, dim, dtype=dtype)
            x[0] = 0
            self.check_finite((flow, flow.inverse)[k], x)
            for key, parameter in flow.named_parameters():
                assert parameter.grad is None or parameter.grad.isfinite().all(), key

    @staticmethod
    def check_finite(direction: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor) -> None:
        y, log_det = direction(x.requires_grad_())
        (y.sum() + log_det.sum()).backward()
        for tensor in (y, log_det, x.grad):
            assert tensor.isfinite().all()

    @each_flow
    def test_nan_stays_visible(self, name):
        flow = make(name, 3).eval()
        for direction in (flow, flow.inverse):
            assert direction(torch.full((2, 3), math.nan, dtype=torch.float64))[0].isnan().all()


class TestActNorm:
    def test_the_first_batch_scored_comes_out_normalised(self):
        flow, x = ActNorm(3), 5 + 2 * points(6, 70, 3, dtype=torch.float32)
        z = flow.inverse(x)[0].reshape(-1, 3)
        torch.testing.assert_close(z.mean(0), torch.zeros(3), rtol=0, atol=1e-5)
        torch.testing.assert_close(z.std(0), torch.ones(3), rtol=0, atol=1e-5)

    def test_later_batches_change_nothing(self):
        flow = ActNorm(2)
        flow.inverse(points(50, 2, dtype=torch.float32))
        before = copy.deepcopy(flow.state_dict())
        flow.inverse(7 + points(50, 2, dtype=torch.float32, seed=3))
        assert all(torch.equal(before[key], value) for key, value in flow.state_dict().items())

    def test_in_evaluation_mode_nothing_changes_and_a_fresh_one_is_the_identity(self):
        flow, x = ActNorm(2).eval(), 5 + points(50, 2, dtype=torch.float32)
        before = copy.deepcopy(flow.state_dict())
        for direction in (flow, flow.inverse):
            assert torch.equal(direction(x)[0], x)
        assert all(torch.equal(before[key], value) for key, value in flow.state_dict().items())
        flow.train().inverse(x)  # the first batch that it scores in training mode
        torch.testing.assert_close(flow.t, x.mean(0))

    def test_forward_before_is_the_identity_and_initialises_nothing(self):
        flow, z = ActNorm(2), points(5, 2, dtype=torch.float32)
        assert torch.equal(flow(z)[0], z)
        assert not flow.initialised

    @pytest.mark.parametrize("mode", ["train", "eval"])
    def test_scoring_does_not_overwrite_what_was_learned_through_forward(self, mode):
        model = NormalizingFlow(ActNorm(2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(100):  # reverse KL to a normal around 5
            optimizer.zero_grad()
            x, log_q = model.rsample_and_log_prob(64)
            (log_q + (x - 5).square().sum(-1) / 2).mean().backward()
            optimizer.step()
        getattr(model, mode)()
        model.log_prob(3 * torch.randn(1000, 2))
        torch.testing.assert_close(model.flow.t.detach(), torch.full((2,), 5.0), rtol=0, atol=0.5)

    def test_a_loaded_flow_is_not_initialised_anew(self):
        flow, fresh, x = ActNorm(2), ActNorm(2), points(50, 2, dtype=torch.float32)
        flow.inverse(x)
        fresh.load_state_dict(flow.state_dict())
        assert torch.equal(fresh.inverse(3 * x)[0], flow.inverse(3 * x)[0])

    def test_a_flow_that_loads_an_uninitialised_state_is(self):
        flow, x = ActNorm(2), points(50, 2, dtype=torch.float32)
        flow.inverse(x)
        flow.load_state_dict(ActNorm(2).state_dict())
        torch.testing.assert_close(flow.inverse(9 * x)[0].std(0), torch.ones(2))

    def test_a_coordinate_that_does_not_vary_keeps_its_scale(self):
        flow = ActNorm(2)
        x = torch.stack((torch.randn(100), torch.full((100,), 1e4 / 3)), -1)
        flow.inverse(x)
        assert flow.s[1] == 0
        assert flow.s[0] != 0

    def test_a_first_batch_of_one_point_is_refused(self):
        with pytest.raises(ValueError, match="at least 2 points, got 1"):
            ActNorm(2).inverse(torch.zeros(1, 2))

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_a_first_batch_that_is_not_finite_is_refused(self, bad):
        flow = ActNorm(2)
        with pytest.raises(ValueError, match="finite values, got NaN or infinity"):
            flow.inverse(torch.tensor([[0.0, 1.0], [bad, 2.0]]))
        assert not flow.initialised

    def test_processes_take_the_first_batch_of_all_together_and_agree(self, tmp_path):
        """Two processes with shares of different size, place and spread; the second holds one point."""
        spawn(score_a_share, (tmp_path,), nprocs=2)
        a, b = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
        together = torch.cat([share(rank) for rank in range(2)])
        assert all(torch.equal(a[key], b[key]) for key in a)
        torch.testing.assert_close(a["t"], together.mean(0))
        torch.testing.assert_close(a["s"].exp(), together.std(0))


def share(rank: int) -> Tensor:
    """The points of one of two processes."""
    return 10 * rank + (1 + rank) * points(1 if rank else 40, 2, dtype=torch.float32, seed=rank)


def score_a_share(rank: int, folder: Path) -> None:
    """What one of two processes does."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    flow = ActNorm(2)
    flow.inverse(share(rank))
    torch.save(flow.state_dict(), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


class TestAffineConstant:
    @pytest.mark.parametrize(("scale", "shift"), [(True, False), (False, True), (False, False)])
    def test_what_is_not_learned_is_not_a_parameter(self, scale, shift):
        flow = AffineConstant(3, scale=scale, shift=shift)
        assert [name for name, _ in flow.named_parameters()] == ["s"] * scale + ["t"] * shift
        assert set(flow.state_dict()) == {"s", "t"}


class TestPlanar:
    def test_u_of_zero_is_the_identity(self):
        flow, z = Planar(3), points(5, 3, dtype=torch.float32)
        nn.init.zeros_(flow.u)
        torch.testing.assert_close(flow(z)[0], z)

    def test_w_of_zero_is_a_translation(self):
        flow, z = Planar(3), points(5, 3, dtype=torch.float32).requires_grad_()
        nn.init.zeros_(flow.w)
        x, log_det = flow(z)
        (x.sum() + log_det.sum()).backward()
        torch.testing.assert_close((x - z).std(0), torch.zeros(3), rtol=0, atol=1e-6)
        assert all(p.grad.isfinite().all() for p in flow.parameters())

    def test_u_hat_meets_its_constraint_whatever_u_is(self):
        flow = Planar(3).double()
        for factor in (-1e4, -10, 0, 10, 1e4):
            with torch.no_grad():
                flow.u.copy_(factor * flow.w)
            u_hat, c = flow.constrain()
            assert c > -1
            torch.testing.assert_close(flow.w @ u_hat, c, rtol=1e-6, atol=1e-9)

    def test_m_of_the_paper(self):
        flow = Planar(2).double()
        a = flow.w @ flow.u
        torch.testing.assert_close(flow.constrain()[1], torch.log(1 + (math.e - 1) * torch.exp(a)) - 1)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
    def test_the_root_is_exact_in_the_hardest_cases(self, dtype):
        c = torch.cat((torch.tensor([-0.999, -0.99, -0.5, -1e-6, 0]), torch.logspace(-6, 6, 13))).to(dtype)[
            :, None
        ]
        size = torch.logspace(-30, 6, 300).to(dtype).expand(len(c), -1)
        size = torch.cat(
            (size, c.abs() + torch.linspace(-5, 15, 41), c.abs() * torch.linspace(0.5, 1.5, 40)), -1
        )
        k = torch.cat((-size, 0 * c, size), -1)
        y = solve_tanh(c, k)
        rounding = torch.finfo(dtype).eps * (k.abs() + y.abs() + c.abs() * torch.tanh(y.abs()))
        assert ((y + c * torch.tanh(y) - k).abs() <= 4 * rounding).all()

    def test_the_root_has_first_and_second_derivatives(self):
        c = torch.tensor(-0.7, dtype=torch.float64, requires_grad=True)
        k = torch.tensor([-3.0, -0.2, 0.1, 1.0], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(solve_tanh, (c, k))
        assert torch.autograd.gradgradcheck(solve_tanh, (c, k))


class TestRadial:
    def test_the_centre_stays_and_is_smooth(self):
        flow = Radial(3).double()
        z = flow.z_0.detach().clone().requires_grad_()
        for direction in (flow, flow.inverse):
            x, log_det = direction(z)
            torch.testing.assert_close(x, flow.z_0.data)
            (gradient,) = torch.autograd.grad(x.sum() + log_det, z)
            assert gradient.isfinite().all()

    def test_the_formula_of_the_paper(self):
        flow, z = Radial(3).double(), points(5, 3)
        alpha, beta = nn.functional.softplus(flow.raw_alpha), nn.functional.softplus(flow.beta)
        r = (z - flow.z_0).norm(dim=-1, keepdim=True)
        torch.testing.assert_close(flow(z)[0], z + (beta - alpha) * (z - flow.z_0) / (alpha + r))


class TestCoupling:
    @pytest.mark.parametrize("make_flow", [AdditiveCoupling, AffineCoupling, SplineCoupling], ids=name_of)
    @pytest.mark.parametrize("dim", [2, 3, 5])
    @pytest.mark.parametrize("parity", [0, 1])
    def test_one_half_moves_as_the_other_says(self, make_flow, dim, parity):
        flow, z = make_flow(dim, parity=parity).double(), 0.3 * points(6, dim)
        halves = [slice(0, dim // 2), slice(dim // 2, dim)]
        kept, moved = halves[::-1] if parity else halves
        x, _ = flow(z)
        assert torch.equal(x[:, kept], z[:, kept])
        assert (x[:, moved] != z[:, moved]).all()
        jacobian = vmap(jacrev(lambda point: flow(point)[0]))(z)
        assert jacobian[:, moved, kept].any()
        between = jacobian[:, moved, moved]
        assert torch.equal(between, torch.diag_embed(between.diagonal(dim1=1, dim2=2)))

    def test_additive_coupling_keeps_volumes(self):
        assert not AdditiveCoupling(4)(points(6, 4, dtype=torch.float32))[1].any()

    @torch.no_grad()
    def test_affine_coupling_scales_within_its_bound(self):
        flow = AffineCoupling(2).double()
        nn.init.constant_(flow.net.theta, 1e6)
        z = torch.ones(1, 2, dtype=torch.float64)
        assert float(flow(z)[1]) == pytest.approx(7)
        assert float(flow.inverse(z)[1]) == pytest.approx(-7)

    @pytest.mark.parametrize("shared", [False, True])
    def test_affine_coupling_is_its_formula(self, shared):
        flow, z = AffineCoupling(5, shared=shared).double(), points(6, 5)
        outputs = flow.net(z[:, :2])
        a, t = outputs[0].split(3, -1) if shared else outputs
        s = a / (1 + a.abs() / 7)
        x, log_det = flow(z)
        torch.testing.assert_close(x, torch.cat((z[:, :2], s.exp() * z[:, 2:] + t), -1))
        torch.testing.assert_close(log_det, s.sum(-1))

    @pytest.mark.parametrize("parity", [0, 1])
    def test_gated_coupling_is_its_formula(self, parity):
        flow, z = GatedCoupling(5, parity).double(), points(6, 5)
        m = (torch.arange(5) % 2 == parity).double()
        mu, a = flow.net(m * z).chunk(2, -1)
        x, log_det = flow(z)
        gate = torch.sigmoid(a)
        torch.testing.assert_close(x, m * z + (1 - m) * (gate * z + (1 - gate) * mu))
        torch.testing.assert_close(log_det, ((1 - m) * gate.log()).sum(-1))

    def test_a_fresh_gated_coupling_is_near_the_identity(self):
        z = points(100, 6, dtype=torch.float32)
        x, log_det = GatedCoupling(6)(z)
        assert (x - z).abs().mean() < 0.2
        assert log_det.abs().mean() < 3 * 0.2


class TestAutoregressive:
    @pytest.mark.parametrize("make_flow", [MAF, IAF, SplineAutoregressive], ids=name_of)
    @pytest.mark.parametrize("parity", [0, 1])
    @pytest.mark.parametrize("hidden", [(), (1,), (2, 7), (24, 24, 24)], ids=str)
    def test_the_jacobian_is_triangular_in_both_directions(self, make_flow, parity, hidden):
        flow, z = make_flow(5, parity=parity, hidden=hidden).double(), 0.5 * points(200, 5)
        for direction in (flow, flow.inverse):
            jacobian = vmap(jacrev(lambda point, f=direction: f(point)[0]))(z)
            jacobian = jacobian.flip(1, 2) if parity else jacobian
            assert not jacobian.triu(1).any()
            assert (jacobian.diagonal(dim1=1, dim2=2) > 0).all()
            assert hidden != (24, 24, 24) or jacobian.any(0).sum() == 15  # every earlier coordinate is read

    def test_iaf_is_maf_run_the_other_way(self):
        maf, iaf, x = MAF(4), IAF(4), points(6, 4, dtype=torch.float32)
        iaf.load_state_dict(maf.state_dict())
        for a, b in ((maf(x), iaf.inverse(x)), (maf.inverse(x), iaf(x))):
            assert torch.equal(a[0], b[0])
            assert torch.equal(a[1], b[1])

    @pytest.mark.parametrize("make_flow", [MAF, SplineAutoregressive], ids=name_of)
    def test_sampling_costs_no_more_than_dim_passes(self, make_flow):
        flow, x = make_flow(64, hidden=(64, 64)), points(32, 64, dtype=torch.float32)
        with torch.no_grad(), FlopCounterMode(display=False) as one_pass:
            flow.inverse(x)
        with torch.no_grad(), FlopCounterMode(display=False) as sampling:
            flow(x)
        assert 0 < sampling.get_total_flops() <= 64 * one_pass.get_total_flops()


class TestInvertibleLinear:
    @pytest.mark.parametrize("dim", [1, 2, 5, 16])
    @torch.no_grad()
    def test_it_starts_as_a_rotation_or_reflection(self, dim):
        flow = InvertibleLinear(dim)
        W = flow(torch.eye(dim))[0].T
        torch.testing.assert_close(W @ W.T, torch.eye(dim), rtol=0, atol=1e-5)
        assert float(flow.log_diag.sum()) == pytest.approx(0, abs=1e-5)

    def test_no_step_makes_it_singular(self):
        flow = InvertibleLinear(4).double()
        with torch.no_grad():
            flow.log_diag.sub_(5)
        z = points(5, 4)
        torch.testing.assert_close(flow.inverse(flow(z)[0])[0], z, rtol=0, atol=1e-5)


class TestSpline:
    spline = Spline(8, 3.0).double()

    def raw(self, n: int, scale: float = 1.0) -> Tensor:
        return scale * points(n, self.spline.size, seed=5)

    def test_zeros_are_the_identity(self):
        x = points(100)
        y, log_slope = self.spline(x, torch.zeros(100, self.spline.size, dtype=torch.float64))
        torch.testing.assert_close(y, x)
        torch.testing.assert_close(log_slope, torch.zeros_like(x), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("inverse", [False, True])
    def test_outside_the_box_nothing_moves(self, inverse):
        x = torch.tensor([-1e4, -3.1, 3.0000001, 50], dtype=torch.float64)
        y, log_slope = self.spline(x, self.raw(4), inverse)
        assert torch.equal(y, x)
        assert not log_slope.any()

    @pytest.mark.parametrize("inverse", [False, True])
    def test_curves_are_smooth_where_bins_and_tails_meet(self, inverse):
        raw = self.raw(1)
        knots = (raw[..., :16].view(2, 8).softmax(-1) @ self.spline.corners)[int(inverse)]
        for side in (-1e-9, 1e-9):
            at = self.spline(knots, raw.expand(9, -1), inverse)
            near = self.spline(knots + side, raw.expand(9, -1), inverse)
            torch.testing.assert_close(near[0], at[0], rtol=0, atol=1e-6)
            torch.testing.assert_close(near[1], at[1], rtol=0, atol=1e-5)

    def test_a_curve_goes_through_its_knots_with_its_slopes(self):
        raw = self.raw(1)
        sizes = 1e-3 + (1 - 8e-3) * raw[0, :16].view(2, 8).softmax(-1)
        knots = 6 * torch.cat((torch.zeros(2, 1, dtype=torch.float64), sizes.cumsum(-1)), -1) - 3
        slopes = 1e-3 + torch.log(1 + (math.exp(1 - 1e-3) - 1) * torch.exp(raw[0, 16:]))
        y, log_slope = self.spline(knots[0], raw.expand(9, -1))
        torch.testing.assert_close(y, knots[1], rtol=0, atol=1e-6)
        torch.testing.assert_close(log_slope[1:-1], slopes.log(), rtol=0, atol=1e-4)
        torch.testing.assert_close(log_slope[[0, -1]], torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-5)

    def test_curves_rise(self):
        x = torch.linspace(-4, 4, 2001, dtype=torch.float64)
        for scale in (1.0, 10.0, 1000.0):
            y, log_slope = self.spline(x, self.raw(1, scale).expand(2001, -1))
            assert (y.diff() > 0).all()
            assert log_slope.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
    @pytest.mark.parametrize("bound", [3.0, 3.1])
    def test_the_ends_of_the_box_stay_where_they_are_in_both_directions(self, dtype, bound):
        for make_flow in (SplineCoupling, SplineAutoregressive):
            flow = make_flow(1, bound=bound).to(dtype)
            nn.init.normal_(flow.net.theta, std=3)
            ends = torch.tensor([[-bound], [bound]], dtype=dtype)
            for direction in (flow, flow.inverse):
                moved, log_det = direction(ends)
                assert torch.equal(moved, ends)
                assert not log_det.any()

    def test_one_bin_is_a_spline_too(self):
        flow, z = SplineCoupling(2, bins=1).double(), points(10, 2)
        torch.testing.assert_close(flow.inverse(flow(z)[0])[0], z)

    def test_a_bound_of_another_dtype_leaves_no_gap(self):
        flow = SplineAutoregressive(1, bound=3.1).double()
        x = torch.linspace(-4, 4, 100_001, dtype=torch.float64)[:, None]
        with torch.no_grad():
            nn.init.normal_(flow.net.theta)
            z = flow.inverse(x)[0]
        assert (z.diff(dim=0) > 0).all()


class TestCompose:
    chain = (lambda: AffineCoupling(3), lambda: MAF(3), lambda: Radial(3))

    def test_forward_applies_the_first_flow_first(self):
        flows = [f().double() for f in self.chain]
        z = points(4, 3)
        x, total = z, torch.zeros(4, dtype=torch.float64)
        for flow in flows:
            x, log_det = flow(x)
            total = total + log_det
        got, got_log_det = Compose(flows)(z)
        torch.testing.assert_close(got, x)
        torch.testing.assert_close(got_log_det, total)

    def test_a_chain_is_a_flow(self):
        flow, z = Compose([f().double() for f in self.chain]), points(4, 3)
        for direction, back in ((flow, flow.inverse), (flow.inverse, flow)):
            x, log_det = direction(z)
            torch.testing.assert_close(back(x)[0], z)
            torch.testing.assert_close(log_det, log_abs_det(direction, z))

    def test_traces_hold_every_state_and_mirror_each_other(self):
        flow, z = Compose([f().double() for f in self.chain]), points(4, 3)
        states = flow.trace(z)
        assert len(states) == 4
        assert torch.equal(states[0], z)
        for step, (before, after) in zip(flow, pairwise(states), strict=True):
            assert torch.equal(step(before)[0], after)
        for there, back in zip(states, reversed(flow.trace_inverse(states[-1])), strict=True):
            torch.testing.assert_close(there, back)

    def test_an_empty_chain_is_the_identity(self):
        z = points(4, 3)
        for direction in (Compose([], dim=3), Compose([], dim=3).inverse):
            assert torch.equal(direction(z)[0], z)
            assert torch.equal(direction(z)[1], torch.zeros(4, dtype=torch.float64))

    def test_it_counts_iterates_and_indexes(self):
        chain = Compose([f() for f in self.chain])
        assert len(chain) == 3
        assert list(chain)[1] is chain[1]

    def test_a_slice_of_a_chain_is_the_chain_of_its_flows(self):
        chain, z = Compose([f().double() for f in self.chain]), points(4, 3)
        assert isinstance(chain[1:], Compose)
        assert list(chain[1:]) == list(chain)[1:]
        assert torch.equal(chain[:2](z)[0], chain.trace(z)[2])
        assert list(chain[::-1]) == list(chain)[::-1]
        assert torch.equal(chain[3:](z)[0], z)  # an empty one is the identity

    def test_chains_in_chains_and_their_print_name_every_flow(self):
        chain = Compose([Compose([Radial(2), MAF(2, 1, context=3)]), Planar(2)])
        text = repr(chain)
        for part in ("dim=2", "Radial(dim=2)", "MAF(", "context=3", "parity=1", "Planar(dim=2)"):
            assert part in text


class TestParameterCounts:
    """The published two-moons models; torch-mnf, examples/half_moons."""

    @staticmethod
    def count(flows: list[Flow]) -> int:
        return sum(parameter.numel() for parameter in Compose(flows).parameters())

    @staticmethod
    def effective(flow: SplineAutoregressive) -> int:
        return int(flow.net.mask.sum())

    def test_nine_affine_couplings(self):
        assert self.count([AffineCoupling(2, parity=k % 2) for k in range(9)]) == 22_914

    def test_nine_maf(self):
        assert self.count([MAF(2, parity=k % 2) for k in range(9)]) == 12_348

    def test_three_autoregressive_splines_counting_what_the_mask_leaves(self):
        splines = [SplineAutoregressive(2) for _ in range(3)]
        others = [make_flow(2) for _ in range(3) for make_flow in (ActNorm, InvertibleLinear)]
        assert self.count(others) + sum(map(self.effective, splines)) == 3_012

    def test_what_the_mask_leaves_is_what_has_a_gradient(self):
        flow = SplineAutoregressive(2).double()
        with torch.no_grad():  # every ReLU open, so that no zero is an accident
            flow.net.theta.abs_()
        raw = flow.net(points(50, 2).abs())
        (raw * points(*raw.shape)).sum().backward()
        assert not flow.net.theta.grad[flow.net.mask == 0].any()
        assert int((flow.net.theta.grad != 0).sum()) == self.effective(flow) == 990

    def test_three_pairs_of_coupling_splines(self):
        flows = [
            flow
            for _ in range(3)
            for flow in (ActNorm(2), InvertibleLinear(2), SplineCoupling(2), SplineCoupling(2, parity=1))
        ]
        assert self.count(flows) == 5_844


def test_an_affine_flow_of_a_normal_is_the_normal_of_torch_distributions():
    flow = AffineConstant(2).double()
    with torch.no_grad():
        flow.s.copy_(torch.tensor([0.5, -1]))
        flow.t.copy_(torch.tensor([2, -3]))
    zero, one = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    affine = AffineTransform(flow.t, flow.s.exp(), event_dim=1)
    expected = TransformedDistribution(MultivariateNormal(zero, one), affine)
    x = points(9, 2)
    torch.testing.assert_close(NormalizingFlow(flow).log_prob(x), expected.log_prob(x))


@pytest.mark.parametrize("name", [make.__name__ for make in WITHOUT_PARITY + WITH_PARITY])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_a_flow_as_the_compiler_traces_it_gives_the_same_numbers_and_gradients(name, direction):
    flow, x = make(name, 3).eval(), points(16, 3)
    torch.compiler.reset()
    direct = getattr(flow, direction)
    results = []
    for function in (direct, torch.compile(direct, backend="aot_eager", fullgraph=True)):
        y, log_det = function(x)
        loss = (y * points(16, 3, seed=2)).sum() + log_det.sum()
        learned = list(flow.parameters())
        results.append((y, log_det, *(torch.autograd.grad(loss, learned) if learned else ())))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


class TestStart:
    """A fresh flow is near the identity, so that a deep chain is finite on data that nobody has scaled."""

    MAKERS = (AdditiveCoupling, AffineCoupling, MAF, IAF, SplineCoupling, SplineAutoregressive)

    @pytest.mark.parametrize("make_flow", MAKERS, ids=name_of)
    @pytest.mark.parametrize("spread", [30, 100])
    def test_a_fresh_chain_of_32_is_finite_on_unscaled_data(self, make_flow, spread):
        chain = Compose([make_flow(19, k % 2) for k in range(32)])
        assert NormalizingFlow(chain).log_prob(spread * torch.randn(200, 19)).isfinite().all()

    @pytest.mark.parametrize("make_flow", MAKERS, ids=name_of)
    def test_a_fresh_flow_is_near_the_identity(self, make_flow):
        z = torch.randn(200, 6)
        x, log_det = make_flow(6)(z)
        assert (x - z).abs().max() < 0.05
        assert log_det.abs().max() < 0.05

    def test_the_gate_inside_mnf_layers_starts_as_published(self):
        a = GatedCoupling(4).net[-1].bias[4:]
        assert torch.equal(a, torch.full((4,), 2.0))


@pytest.mark.skipif(
    shutil.which("c++") is None, reason="torch.compile needs a C++ compiler: none called c++ was found"
)
@pytest.mark.parametrize("name", ["AffineCoupling", "SplineCoupling"])
def test_a_compiled_flow_gives_the_same_numbers(name):
    flow, x = make(name, 2, torch.float32), points(32, 2, dtype=torch.float32)
    # inductor writes for the processor that it finds, which torch may have been told not to use in full
    bits = {"DEFAULT": 1, "AVX2": 256}.get(torch.backends.cpu.get_cpu_capability())
    compiled = torch.compile(flow, options={"cpp.simdlen": bits})
    for a, b in zip(compiled(x), flow(x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
