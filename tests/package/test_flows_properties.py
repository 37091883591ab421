"""Flows of any size, with any batch and parameters, keep their promises: hypothesis looks for a breach."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mnf_lite.flows import (
    ActNorm,
    AffineConstant,
    Compose,
    Flow,
    GatedCoupling,
    InvertibleLinear,
    NormalizingFlow,
    Sigmoid,
)
from mnf_lite.flows.planar import solve_tanh
from mnf_lite.flows.spline import Spline
from mnf_lite.nets import MADE
from tests.package.test_flows import WITH_PARITY, WITHOUT_PARITY, log_abs_det

often = settings(max_examples=60, deadline=None, derandomize=True)

batches = st.lists(st.integers(0, 3), max_size=3).map(tuple)
hidden = st.lists(st.integers(1, 9), max_size=3).map(tuple)
spread = st.floats(0.01, 1.0)


def draw_flow(data: st.DataObject, dim: int) -> Flow:
    """A flow of some family, of some size, with some parameters."""
    torch.manual_seed(data.draw(st.integers(0, 1000), label="seed"))
    family = data.draw(st.sampled_from(WITHOUT_PARITY + WITH_PARITY))
    if family in WITHOUT_PARITY:
        flow = family(dim).double()
    else:
        sizes = data.draw(hidden, label="hidden")
        parity = data.draw(st.integers(0, 1), label="parity")
        flow = family(dim, parity=parity, hidden=sizes).double()
    scale = data.draw(spread, label="spread")
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    if isinstance(flow, ActNorm):
        flow.inverse(scale * torch.randn(9, dim, dtype=torch.float64))
    return flow


@often
@given(st.data(), st.integers(1, 7), batches)
def test_any_flow_is_undone_by_its_inverse_whatever_the_batch(data, dim, batch):
    flow = draw_flow(data, dim)
    z = 2 * torch.randn(*batch, dim, dtype=torch.float64)
    x, log_det = flow(z)
    z_again, log_det_back = flow.inverse(x)
    assert log_det.shape == log_det_back.shape == batch
    # What is lost on the way back is what the inverse magnifies: at most 1e6 for the flows that are drawn.
    torch.testing.assert_close(z_again, z, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(log_det_back, -log_det, rtol=1e-7, atol=1e-7)


@often
@given(st.data(), st.integers(1, 5))
def test_any_chains_log_det_is_that_of_autograd(data, dim):
    flow = Compose([draw_flow(data, dim) for _ in range(data.draw(st.integers(1, 3), label="length"))])
    a = 2 * torch.randn(5, dim, dtype=torch.float64)
    for direction in (flow, flow.inverse):
        torch.testing.assert_close(direction(a)[1], log_abs_det(direction, a), rtol=1e-6, atol=1e-6)


@often
@given(st.data(), st.integers(1, 6), batches)
def test_a_batch_is_its_points_one_by_one(data, dim, batch):
    flow = draw_flow(data, dim)
    x = torch.randn(*batch, dim, dtype=torch.float64)
    z, log_det = flow.inverse(x)
    for index in torch.cartesian_prod(*map(torch.arange, batch)).reshape(-1, len(batch)) if batch else []:
        one = flow.inverse(x[tuple(index)])
        torch.testing.assert_close(one[0], z[tuple(index)])
        torch.testing.assert_close(one[1], log_det[tuple(index)])


@often
@given(st.integers(1, 20), hidden, st.integers(1, 4), st.integers(0, 1))
def test_made_of_any_size_is_strictly_autoregressive(dim, sizes, outputs, parity):
    net = MADE(dim, sizes, outputs, parity)
    nn.init.uniform_(net.theta, 0.1, 1)
    depends = torch.func.jacrev(net)(torch.rand(dim)).abs().sum(1) > 0
    assert not (depends.flip(0, 1) if parity else depends).triu().any()


@often
@given(st.floats(-0.999, 1e4), st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5))
def test_the_root_of_a_planar_flow_is_one(c, k):
    c, k = torch.tensor(c, dtype=torch.float64), torch.tensor(k, dtype=torch.float64)
    y = solve_tanh(c, k)
    rounding = torch.finfo(k.dtype).eps * (k.abs() + y.abs() + c.abs() * torch.tanh(y.abs()))
    assert ((y + c * torch.tanh(y) - k).abs() <= 4 * rounding).all()


def curve(spline: Spline, raw: Tensor, x: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
    return spline(x, raw.expand(len(x), -1), inverse)


@often
@given(st.integers(1, 30), st.floats(0.1, 50), st.floats(0, 5), st.integers(0, 1000))
def test_any_spline_rises_and_is_undone(bins, bound, scale, seed):
    spline = Spline(bins, bound).double()
    generator = torch.Generator().manual_seed(seed)
    raw = scale * torch.randn(spline.size, generator=generator, dtype=torch.float64)
    x = torch.linspace(-1.2 * bound, 1.2 * bound, 301, dtype=torch.float64)
    y, log_slope = curve(spline, raw, x)
    assert (y.diff() > 0).all()
    x_again, log_slope_back = curve(spline, raw, y, inverse=True)
    torch.testing.assert_close(x_again, x, rtol=1e-7, atol=1e-7 * bound)
    torch.testing.assert_close(log_slope_back, -log_slope, rtol=1e-5, atol=1e-5)


@often
@given(st.integers(1, 5), st.integers(0, 100))
def test_an_invertible_linear_map_is_its_matrix(dim, seed):
    torch.manual_seed(seed)
    flow = InvertibleLinear(dim).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    W = flow(torch.eye(dim, dtype=torch.float64))[0].T
    z = torch.randn(3, dim, dtype=torch.float64)
    torch.testing.assert_close(flow(z)[0], z @ W.T)
    torch.testing.assert_close(flow(z)[1], torch.linalg.slogdet(W).logabsdet.expand(3))
    torch.testing.assert_close(flow.inverse(z)[0], torch.linalg.solve(W, z.T).T, rtol=1e-7, atol=1e-7)


@often
@given(st.integers(1, 4), st.floats(-3, 3), st.floats(0.1, 3))
def test_a_closed_gate_gives_the_mean_and_an_open_one_the_input(dim, mu, z):
    flow = GatedCoupling(dim, hidden=(2,)).double()
    last = flow.net[-1]
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias[:dim], mu)
    z = torch.full((dim,), z, dtype=torch.float64)
    moved = flow.mask == 0
    nn.init.constant_(last.bias[dim:], 50)
    torch.testing.assert_close(flow(z)[0], z)
    nn.init.constant_(last.bias[dim:], -50)  # floored at -7: a thousandth of z is left
    torch.testing.assert_close(flow(z)[0][moved], torch.full_like(z, mu)[moved], rtol=0, atol=1e-2)


@often
@given(st.data(), st.integers(1, 4))
def test_a_density_on_a_density_is_that_of_the_chain(data, dim):
    flow, below = draw_flow(data, dim).eval(), AffineConstant(dim).double()
    nn.init.uniform_(below.s, -2, 2)
    nn.init.uniform_(below.t, -2, 2)
    x, _ = flow(torch.randn(4, dim, dtype=torch.float64))
    stacked = NormalizingFlow(flow, base=NormalizingFlow(below))
    chained = NormalizingFlow(Compose([below, flow]))
    torch.testing.assert_close(stacked.log_prob(x), chained.log_prob(x))
    torch.manual_seed(1)
    sample, log_prob = stacked.rsample_and_log_prob((3,))
    torch.manual_seed(1)
    torch.testing.assert_close(chained.rsample(3), sample)
    torch.testing.assert_close(chained.log_prob(sample), log_prob, rtol=1e-5, atol=1e-5)


@often
@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=4))
def test_a_bounded_density_can_score_whatever_it_draws(z):
    for dtype in (torch.float32, torch.float64):
        flow = Sigmoid(len(z))
        x, _ = flow(torch.tensor(z, dtype=dtype))
        assert ((x > 0) & (x < 1)).all()
        z_again, log_det = flow.inverse(x)
        assert z_again.isfinite().all()
        assert log_det.isfinite()
