"""NormalizingFlow behaves as a torch distribution, on any base that torch.distributions can make."""

import copy
import math

import pytest
import torch
from torch import distributions as D
from torch import nn

from mnf_lite.flows import (
    AffineConstant,
    AffineCoupling,
    Compose,
    InvertibleLinear,
    NormalizingFlow,
    StandardNormal,
)

pytestmark = pytest.mark.usefixtures("seed")


def flow(dim: int = 2) -> Compose:
    torch.manual_seed(0)
    return Compose([AffineCoupling(dim), InvertibleLinear(dim), AffineCoupling(dim, parity=1)])


def independent(dim: int = 2) -> D.Distribution:
    return D.Independent(D.Normal(torch.zeros(dim), torch.ones(dim)), 1)


BASES = {
    "Independent": independent,
    "Laplace": lambda: D.Independent(D.Laplace(torch.zeros(2), 2 * torch.ones(2)), 1),
    "Uniform": lambda: D.Independent(D.Uniform(-9 * torch.ones(2), 9 * torch.ones(2)), 1),
    "broadcast": lambda: D.Independent(D.Normal(torch.tensor(1.0), torch.tensor(2.0)).expand((2,)), 1),
    "covariance": lambda: D.MultivariateNormal(torch.zeros(2), torch.tensor([[2.0, 0.5], [0.5, 1.0]])),
    "precision": lambda: D.MultivariateNormal(
        torch.zeros(2), precision_matrix=torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    ),
    "low rank": lambda: D.LowRankMultivariateNormal(torch.zeros(2), torch.ones(2, 1), torch.ones(2)),
    "mixture": lambda: D.MixtureSameFamily(
        D.Categorical(logits=torch.tensor([0.0, 1.0, 2.0])),
        D.Independent(D.Normal(torch.arange(6.0).view(3, 2), torch.ones(3, 2)), 1),
    ),
    "transformed": lambda: D.TransformedDistribution(
        independent(), [D.AffineTransform(torch.ones(2), 2 * torch.ones(2), event_dim=1).inv]
    ),
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
    def test_it_saves_with_the_model(self, make_base):
        model, other = NormalizingFlow(flow(), make_base()), NormalizingFlow(flow(), make_base())
        with torch.no_grad():
            for tensor in model.buffers():
                if tensor.is_floating_point():
                    tensor.mul_(1.5)
        other.load_state_dict(model.state_dict())
        x = torch.randn(7, 2)
        with torch.no_grad():
            assert torch.equal(model.log_prob(x), other.log_prob(x))

    @all_bases
    def test_it_copies_with_the_model(self, make_base):
        model, x = NormalizingFlow(flow(), make_base()), torch.randn(7, 2)
        model.log_prob(x)
        assert torch.equal(copy.deepcopy(model).log_prob(x), model.log_prob(x))

    @all_bases
    def test_the_callers_distribution_is_left_alone(self, make_base):
        base = make_base()
        before = base.log_prob(torch.ones(2))
        model = NormalizingFlow(flow(), base)
        with torch.no_grad():
            for tensor in model.buffers():
                if tensor.is_floating_point():
                    tensor.add_(1)
        assert torch.equal(base.log_prob(torch.ones(2)), before)

    @all_bases
    def test_a_meta_device_takes_every_tensor_along(self, make_base):
        model = NormalizingFlow(flow(), make_base()).to("meta")
        for tensor in model.state_dict().values():
            assert tensor.is_meta
        assert model.base.sample((3,)).is_meta or not model.base.has_rsample


class TestTrainedBase:
    @pytest.mark.parametrize("kind", ["Independent", "MultivariateNormal"])
    def test_parameters_stay_parameters_and_are_trained(self, kind):
        loc, scale = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.ones(2))
        base = {
            "Independent": lambda: D.Independent(D.Normal(loc, scale), 1),
            "MultivariateNormal": lambda: D.MultivariateNormal(loc, scale_tril=torch.eye(2)),
        }[kind]()
        model = NormalizingFlow(AffineConstant(2), base)
        assert any(parameter is loc for parameter in model.parameters())
        before = model.log_prob(torch.ones(2))
        for _ in range(2):  # a second backward pass meets a graph of its own
            model.log_prob(torch.ones(2)).backward()
        assert loc.grad.any()
        with torch.no_grad():
            loc.add_(1)
        assert model.log_prob(torch.ones(2)) > before
        copied = copy.deepcopy(model)
        assert all(parameter is not loc for parameter in copied.parameters())
        assert copied.log_prob(torch.ones(2)) == model.log_prob(torch.ones(2))

    def test_a_shared_parameter_is_registered_once(self):
        both = nn.Parameter(torch.ones(2))
        model = NormalizingFlow(AffineConstant(2), D.Independent(D.Normal(both, both), 1))
        assert set(model.state_dict()) == {"base_base_dist_loc", "flow.s", "flow.t"}

    @pytest.mark.parametrize("make_tensor", [lambda p: p.exp(), lambda p: torch.ones(2, requires_grad=True)])
    def test_a_tensor_computed_from_parameters_is_refused(self, make_tensor):
        base = D.Independent(D.Normal(torch.zeros(2), make_tensor(nn.Parameter(torch.zeros(2)))), 1)
        with pytest.raises(
            ValueError, match=r"'base_base_dist_scale' requires a gradient but is no nn.Parameter"
        ):
            NormalizingFlow(flow(), base)


class TestSampling:
    def test_shapes_are_those_of_torch_distributions(self):
        model = NormalizingFlow(flow())
        for shape in ((), (3,), (2, 0), torch.Size([4, 5])):
            assert model.sample(shape).shape == model.rsample(shape).shape == (*shape, 2)
        assert model.sample().shape == (2,)

    def test_sample_has_no_gradient_and_rsample_reaches_flow_and_base(self):
        loc = nn.Parameter(torch.zeros(2))
        model = NormalizingFlow(flow(), D.MultivariateNormal(loc, torch.eye(2)))
        assert not model.sample((5,)).requires_grad
        model.rsample((5,)).square().sum().backward()
        assert all(parameter.grad.any() for parameter in model.parameters())

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

    def test_a_base_that_cannot_be_reparametrised_says_so(self):
        model = NormalizingFlow(flow(), BASES["mixture"]())
        assert model.sample((4,)).shape == (4, 2)
        with pytest.raises(NotImplementedError):
            model.rsample((4,))


class TestDefaultBase:
    def test_it_is_the_standard_normal(self):
        normal = NormalizingFlow(flow(3)).base
        expected = D.MultivariateNormal(torch.zeros(3), torch.eye(3))
        x = torch.randn(4, 5, 3)
        torch.testing.assert_close(normal.log_prob(x), expected.log_prob(x))
        torch.testing.assert_close(normal.entropy(), expected.entropy())
        assert torch.equal(normal.mean, expected.mean)
        assert torch.equal(normal.variance, expected.variance)
        assert normal.event_shape == (3,)
        assert normal.batch_shape == ()

    def test_its_samples_have_unit_covariance(self):
        torch.manual_seed(0)
        x = StandardNormal(torch.zeros(2)).sample((100_000,))
        torch.testing.assert_close(torch.cov(x.T), torch.eye(2), rtol=0, atol=0.03)
        torch.testing.assert_close(x.mean(0), torch.zeros(2), rtol=0, atol=0.03)

    def test_it_follows_the_dtype_the_flow_has_when_it_is_given_and_later(self):
        assert NormalizingFlow(flow().double()).sample().dtype == torch.float64
        assert NormalizingFlow(flow()).double().sample().dtype == torch.float64

    def test_constants_are_kept(self):
        model = NormalizingFlow(AffineConstant(2))
        assert float(model.log_prob(torch.zeros(2)).detach()) == pytest.approx(-math.log(2 * math.pi))


@pytest.mark.parametrize(
    ("base", "came"),
    [
        (D.Normal(torch.zeros(2), torch.ones(2)), r"got \[\] with batch shape \[2\]"),
        (D.MultivariateNormal(torch.zeros(3), torch.eye(3)), r"got \[3\] with batch shape \[\]"),
    ],
)
def test_a_base_of_another_event_shape_is_refused(base, came):
    with pytest.raises(ValueError, match=rf"must have the flow's event shape \[2\], {came}"):
        NormalizingFlow(flow(), base)
