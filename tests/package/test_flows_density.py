"""NormalizingFlow behaves as a torch distribution, on any base that is a density, and given a context."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch import distributions as D
from torch.func import jacrev, vmap

from mnf_lite.flows import (
    IAF,
    MAF,
    ActNorm,
    AdditiveCoupling,
    AffineConstant,
    AffineCoupling,
    Compose,
    Density,
    Exp,
    Flow,
    GatedCoupling,
    InvertibleLinear,
    NormalizingFlow,
    Radial,
    Sigmoid,
    SplineAutoregressive,
    SplineCoupling,
    StandardNormal,
)
from mnf_lite.nets import MADE

pytestmark = pytest.mark.usefixtures("seed")


def flow(dim: int = 2) -> Compose:
    """A chain that is far from the identity."""
    torch.manual_seed(0)
    chain = Compose([AffineCoupling(dim), InvertibleLinear(dim), AffineCoupling(dim, parity=1)])
    with torch.no_grad():
        for parameter in chain.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return chain


class Mixture(Density):
    """Three normals, one tensor of which is trained; it cannot be reparametrised."""

    has_rsample = False

    def __init__(self) -> None:
        super().__init__(2)
        self.means = nn.Parameter(torch.arange(6.0).view(3, 2) - 2)
        self.register_buffer("logits", torch.tensor([0.0, 1.0, 2.0]))

    def distribution(self) -> D.Distribution:
        parts = D.Independent(D.Normal(self.means, torch.ones_like(self.means)), 1)
        return D.MixtureSameFamily(D.Categorical(logits=self.logits), parts)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.distribution().log_prob(x)

    def rsample(self, shape=(), context: Tensor | None = None) -> Tensor:
        return self.distribution().rsample(shape)

    def sample(self, shape=(), context: Tensor | None = None) -> Tensor:
        return self.distribution().sample(shape)


BASES: dict[str, Callable[[], Density]] = {
    "standard normal": lambda: StandardNormal(2),
    "a flow's density": lambda: NormalizingFlow(flow()),
    "one's own": Mixture,
}
all_bases = pytest.mark.parametrize("make_base", BASES.values(), ids=list(BASES))


class TestAnyBase:
    @all_bases
    def test_log_prob_is_that_of_the_base_plus_the_log_determinant(self, make_base):
        model, x = NormalizingFlow(flow(), make_base()), torch.randn(7, 2)
        z, log_det = model.flow.inverse(x)
        torch.testing.assert_close(model.log_prob(x), make_base().log_prob(z) + log_det)

    @all_bases
    def test_it_casts_with_the_model_even_after_use(self, make_base):
        model, x = NormalizingFlow(flow(), make_base()), torch.randn(7, 2)
        before = model.log_prob(x)
        model.double()
        after = model.log_prob(x.double())
        assert after.dtype == model.sample((3,)).dtype == torch.float64
        torch.testing.assert_close(after.float(), before, rtol=1e-4, atol=1e-4)

    @all_bases
    def test_it_saves_and_copies_with_the_model(self, make_base):
        model, other = NormalizingFlow(flow(), make_base()), NormalizingFlow(flow(), make_base())
        with torch.no_grad():
            for tensor in [*model.parameters(), *model.buffers()]:
                if tensor.is_floating_point():
                    tensor.mul_(1.5)
        other.load_state_dict(model.state_dict())
        x = torch.randn(7, 2)
        with torch.no_grad():
            assert torch.equal(model.log_prob(x), other.log_prob(x))
            assert torch.equal(model.log_prob(x), copy.deepcopy(model).log_prob(x))

    @all_bases
    def test_a_meta_device_takes_every_tensor_along(self, make_base):
        model = NormalizingFlow(flow(), make_base()).to("meta")
        for tensor in model.state_dict().values():
            assert tensor.is_meta

    def test_its_parameters_are_trained(self):
        model = NormalizingFlow(AffineConstant(2), Mixture())
        for _ in range(2):  # a second backward pass meets a graph of its own
            model.log_prob(torch.ones(2)).backward()
        assert model.base.means.grad.any(1).all()

    def test_a_distribution_of_torch_is_told_how_to_become_one(self):
        base = D.MultivariateNormal(torch.zeros(2), torch.eye(2))
        with pytest.raises(TypeError, match=r"got MultivariateNormal: .* subclass of flows.Density"):
            NormalizingFlow(flow(), base)

    def test_one_that_cannot_be_reparametrised_still_samples_and_says_so(self):
        model = NormalizingFlow(flow(), Mixture())
        assert model.sample((4,)).shape == (4, 2)
        assert not model.has_rsample
        with pytest.raises(NotImplementedError):
            model.rsample((4,))


class TestSampling:
    def test_shapes_are_those_of_torch_distributions(self):
        model = NormalizingFlow(flow())
        for shape in ((), (3,), (2, 0), torch.Size([4, 5])):
            assert model.sample(shape).shape == model.rsample(shape).shape == (*shape, 2)
        assert model.sample().shape == (2,)

    def test_an_int_is_a_shape_of_one_axis(self):
        model = NormalizingFlow(flow())
        for draw in (model.sample, model.rsample, model.base.sample):
            assert draw(5).shape == draw([5]).shape == (5, 2)

    def test_sample_has_no_gradient_and_rsample_reaches_flow_and_base(self):
        model = NormalizingFlow(flow(), NormalizingFlow(AffineConstant(2)))
        assert not model.sample((5,)).requires_grad
        model.rsample((5,)).square().sum().backward()
        assert all(parameter.grad.any() for parameter in model.parameters())

    @pytest.mark.parametrize("shape", [(), 4, (2, 3)], ids=str)
    def test_points_drawn_with_their_log_density_are_scored_the_same(self, shape):
        model = NormalizingFlow(flow().double(), NormalizingFlow(flow().double()))
        x, log_prob = model.rsample_and_log_prob(shape)
        torch.manual_seed(0)
        assert x.shape[:-1] == log_prob.shape
        torch.testing.assert_close(model.log_prob(x), log_prob)
        assert all(p.grad is None for p in model.parameters())
        log_prob.sum().backward()
        assert any(p.grad.any() for p in model.parameters())

    def test_drawing_with_the_log_density_is_one_pass_where_scoring_would_take_dim(self):
        calls = []
        model = NormalizingFlow(IAF(5))
        model.flow.net.register_forward_hook(lambda *_: calls.append(1))
        model.rsample_and_log_prob(3)
        assert len(calls) == 1

    def test_the_generator_of_torch_decides(self):
        model = NormalizingFlow(flow())
        torch.manual_seed(3)
        first = model.sample((5,))
        torch.manual_seed(3)
        assert torch.equal(model.rsample((5,)), first)
        assert not torch.equal(model.sample((5,)), first)

    def test_samples_follow_the_density(self):
        torch.manual_seed(0)
        model, p = NormalizingFlow(flow()), 50_000
        x = model.sample((p,))
        # E[1 / (p(x) V)] over samples within a box of volume V is the probability-weighted identity: 1.
        inside = (x.abs() < 0.7).all(-1)
        estimate = (inside / model.log_prob(x).exp()).mean() / 1.4**2
        assert float(estimate.detach()) == pytest.approx(1, abs=0.05)


class TestDefaultBase:
    def test_it_is_the_standard_normal(self):
        normal = NormalizingFlow(flow(3)).base
        expected = D.MultivariateNormal(torch.zeros(3), torch.eye(3))
        x = torch.randn(4, 5, 3)
        torch.testing.assert_close(normal.log_prob(x), expected.log_prob(x))
        torch.testing.assert_close(normal.entropy(), expected.entropy())
        assert normal.event_shape == (3,)
        assert normal.batch_shape == ()

    def test_its_samples_have_unit_covariance(self):
        torch.manual_seed(0)
        x = StandardNormal(2).sample((100_000,))
        torch.testing.assert_close(torch.cov(x.T), torch.eye(2), rtol=0, atol=0.03)
        torch.testing.assert_close(x.mean(0), torch.zeros(2), rtol=0, atol=0.03)

    def test_it_follows_the_dtype_the_flow_has_when_it_is_given_and_later(self):
        assert NormalizingFlow(flow().double()).sample().dtype == torch.float64
        assert NormalizingFlow(flow()).double().sample().dtype == torch.float64

    def test_constants_are_kept(self):
        model = NormalizingFlow(AffineConstant(2))
        assert float(model.log_prob(torch.zeros(2)).detach()) == pytest.approx(-math.log(2 * math.pi))


class TestAsADistribution:
    def test_it_has_the_shapes_that_torch_distributions_asks_for(self):
        model = NormalizingFlow(flow(3))
        assert (model.batch_shape, model.event_shape, model.has_rsample) == ((), (3,), True)

    def test_torch_distributions_transforms_it(self):
        model = NormalizingFlow(flow())
        both = D.TransformedDistribution(
            model, [D.AffineTransform(torch.ones(2), torch.tensor([2.0, 3.0]), 1)]
        )
        x = both.sample((5,))
        assert x.shape == (5, 2)
        expected = model.log_prob((x - 1) / torch.tensor([2.0, 3.0])) - math.log(6)
        torch.testing.assert_close(both.log_prob(x), expected)


class TestBoundedSupport:
    def test_a_sigmoid_of_a_normal_is_that_of_torch_distributions(self):
        z = 3 * torch.randn(50, 2, dtype=torch.float64)
        base = D.Independent(D.Normal(torch.zeros(2).double(), torch.ones(2).double()), 1)
        for last, transform in ((Sigmoid, D.SigmoidTransform()), (Exp, D.ExpTransform())):
            expected, x = D.TransformedDistribution(base, [transform]), transform(z)
            torch.testing.assert_close(NormalizingFlow(last(2).double()).log_prob(x), expected.log_prob(x))

    @pytest.mark.parametrize(
        ("last", "outside"),
        [(Sigmoid, (-0.1, 0.0, 1.0, 1.1, -math.inf, math.inf)), (Exp, (-1.0, 0.0, math.inf, -math.inf))],
    )
    def test_outside_the_support_the_density_is_zero(self, last, outside):
        model = NormalizingFlow(Compose([AffineCoupling(2), last(2)]))
        x = torch.stack((torch.tensor(outside), torch.full((len(outside),), 0.5)), -1)
        assert torch.equal(model.log_prob(x), torch.full((len(outside),), -math.inf))

    @pytest.mark.parametrize("last", [Sigmoid, Exp])
    def test_a_sample_can_be_scored_however_far_out_it_was_drawn(self, last):
        for dtype in (torch.float32, torch.float64):
            z = torch.tensor([-1e4, -100, -20, 20, 100, 1e4], dtype=dtype)[:, None].requires_grad_()
            x, log_det = last(1)(z)
            assert NormalizingFlow(last(1).to(dtype)).log_prob(x).isfinite().all() or last is Exp
            (gradient,) = torch.autograd.grad(log_det.sum(), z)
            assert log_det.isfinite().all()
            assert gradient.isfinite().all()


CONDITIONAL: list[Callable[..., Flow]] = [
    AdditiveCoupling,
    AffineCoupling,
    GatedCoupling,
    MAF,
    IAF,
    SplineCoupling,
    SplineAutoregressive,
]
conditional = pytest.mark.parametrize("make_flow", CONDITIONAL, ids=lambda make: make.__name__)


def wild(flow: Flow) -> Flow:
    """The flow in double precision, away from its start."""
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return flow.double()


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


class TestContext:
    """Beside these, the tests of all flows run over conditional flows, given one context."""

    @conditional
    @pytest.mark.parametrize("dim", [1, 2, 5])
    def test_a_context_for_every_point_inverts_and_has_autograds_log_det(self, make_flow, dim):
        flow, z, context = wild(make_flow(dim, context=3)), randn(8, dim), randn(8, 3)
        x, log_det = flow(z, context)
        z_again, log_det_back = flow.inverse(x, context)
        torch.testing.assert_close(z_again, z, rtol=0, atol=1e-8)
        torch.testing.assert_close(log_det_back, -log_det, rtol=0, atol=1e-8)
        jacobian = vmap(jacrev(lambda z_0, c: flow(z_0, c)[0]))(z, context)
        torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobian).logabsdet, rtol=0, atol=1e-9)

    @conditional
    @pytest.mark.parametrize("hidden", [(), (24, 24)], ids=str)
    def test_every_coordinate_that_moves_reads_the_context(self, make_flow, hidden):
        flow = wild(make_flow(4, hidden=hidden, context=3))
        z = 0.5 * randn(200, 4)
        slope = vmap(jacrev(lambda c, z_0: flow(z_0, c)[0]))(randn(200, 3), z)  # [B, dim, context]
        reads = (slope != 0).any(0).all(1)
        moves = (flow(z, randn(200, 3))[0] != z).any(0)
        assert torch.equal(reads, moves)
        assert moves.sum() >= 2

    @conditional
    def test_a_gradient_reaches_the_context(self, make_flow):
        flow, context = wild(make_flow(3, context=2)), randn(2).requires_grad_()
        for direction in (flow, flow.inverse):
            x, log_det = direction(randn(16, 3), context)
            (gradient,) = torch.autograd.grad(x.sum() + log_det.sum(), context)
            assert gradient.all()

    @conditional
    def test_points_and_contexts_broadcast(self, make_flow):
        flow, z, context = wild(make_flow(3, context=2)), randn(5, 3), randn(4, 1, 2)
        for direction in (flow, flow.inverse):
            x, log_det = direction(z, context)
            assert x.shape == (4, 5, 3)
            assert log_det.shape == (4, 5)
            one = direction(z[1], context[2, 0])
            torch.testing.assert_close((x[2, 1], log_det[2, 1]), one)

    @pytest.mark.parametrize("dim", [1, 2, 5, 16])
    @pytest.mark.parametrize("hidden", [(), (1,), (3, 2), (24, 24)], ids=str)
    @pytest.mark.parametrize("parity", [0, 1])
    def test_made_with_a_context_stays_autoregressive(self, dim, hidden, parity):
        net = MADE(dim, hidden, 2, parity, context=3)
        nn.init.uniform_(net.theta, 0.1, 1)  # every ReLU open: what could depend does
        in_x, in_context = jacrev(net, (0, 1))(torch.rand(dim), torch.rand(3))
        depends = in_x.abs().sum(1) > 0
        assert not (depends.flip(0, 1) if parity else depends).triu().any()
        assert (in_context != 0).all()
        if hidden in ((), (24, 24)):
            assert depends.sum() == dim * (dim - 1) // 2

    def test_in_a_chain_the_flows_that_take_none_ignore_it(self):
        chain = wild(Compose([Radial(2), MAF(2, context=3), ActNorm(2), AffineCoupling(2, context=3)])).eval()
        z, context = randn(6, 2), randn(6, 3)
        x, log_det = chain(z, context)
        torch.testing.assert_close(chain.inverse(x, context), (z, -log_det))
        states, back = chain.trace(z, context), chain.trace_inverse(x, context)
        assert torch.equal(states[1], chain[0](z)[0])
        assert torch.equal(states[2], chain[1](states[1], context)[0])
        for there, again in zip(states, reversed(back), strict=True):
            torch.testing.assert_close(there, again)

    def test_a_conditional_density_integrates_to_one_for_every_context(self):
        chain = wild(Compose([AffineCoupling(2, context=1), SplineCoupling(2, 1, context=1)]))
        side = torch.arange(-9, 9, 0.06, dtype=torch.float64)
        grid = torch.cartesian_prod(side, side)
        with torch.no_grad():
            log_prob = NormalizingFlow(chain).log_prob(
                grid, torch.tensor([-1.0, 2.0]).double()[:, None, None]
            )
        torch.testing.assert_close(
            log_prob.exp().sum(-1) * 0.06**2, torch.ones(2).double(), atol=2e-3, rtol=0
        )

    def test_samples_have_the_leading_axes_of_the_context_last(self):
        model = NormalizingFlow(wild(Compose([MAF(2, context=3)])), NormalizingFlow(Radial(2).double()))
        context = randn(4, 3)
        for draw in (model.sample, model.rsample):
            assert draw(7, context).shape == (7, 4, 2)
            assert draw((), context[0]).shape == (2,)
        x, log_prob = model.rsample_and_log_prob((7,), context)
        torch.testing.assert_close(model.log_prob(x, context), log_prob)

    def test_a_density_learns_how_its_mean_follows_the_context(self):
        model = NormalizingFlow(Compose([AffineCoupling(1, context=1), AffineCoupling(1, context=1)]))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(300):
            c = torch.rand(256, 1) * 4 - 2
            loss = -model.log_prob(2 * c + 0.5 * torch.randn(256, 1), c).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        means = model.sample(2000, torch.tensor([[-1.0], [1.0]])).mean(0)
        torch.testing.assert_close(means, torch.tensor([[-2.0], [2.0]]), rtol=0, atol=0.25)


def test_half_precision_by_autocast_is_left_to_torch():
    model, x = NormalizingFlow(flow()), torch.randn(64, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_prob = model.log_prob(x)
        model.log_prob(x.bfloat16())
    torch.testing.assert_close(log_prob.float(), model.log_prob(x), rtol=0.1, atol=0.2)


def test_a_flow_of_ones_own_need_not_know_of_context(seed):
    class Double(Flow):
        def forward(self, z):
            return 2 * z, z.new_full(z.shape[:-1], self.dim * math.log(2))

        def inverse(self, x):
            return x / 2, x.new_full(x.shape[:-1], -self.dim * math.log(2))

    for flow in (Double(3), Compose([Double(3)])):
        q = NormalizingFlow(flow)
        x, log_prob = q.rsample_and_log_prob(1000)
        torch.testing.assert_close(q.log_prob(x), log_prob)
        assert 1.8 < q.sample(1000).std() < 2.2
        assert q.rsample((2, 3)).shape == (2, 3, 3)
