"""Networks compute what their formulas say, and MADE's outputs see only what they may."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import jacrev

from mnf_lite.nets import MADE, MLP, MaskedLinear, StackedMLP

HIDDEN = [(), (1,), (3, 2), (24, 24, 24)]


class TestMLP:
    @pytest.mark.parametrize("hidden", HIDDEN, ids=str)
    def test_a_nonlinearity_follows_every_hidden_layer_and_no_other(self, hidden):
        kinds = [type(layer) for layer in MLP(4, hidden, 2, nn.Tanh)]
        assert kinds == [nn.Linear, nn.Tanh] * len(hidden) + [nn.Linear]

    def test_one_hidden_layer_already_bends(self):
        net, x = MLP(3, (8,), 1, nn.Tanh).double(), torch.randn(3, dtype=torch.float64)
        assert jacrev(jacrev(lambda x: net(x)[0]))(x).any()

    def test_leading_axes_are_free(self):
        assert MLP(3, (8,), 2)(torch.zeros(4, 5, 3)).shape == (4, 5, 2)


class TestStackedMLP:
    @pytest.mark.parametrize("hidden", HIDDEN, ids=str)
    @pytest.mark.parametrize("n", [1, 2, 3])
    def test_it_computes_n_separate_networks(self, n, hidden):
        stacked, x = StackedMLP(n, 4, hidden, 2).double(), torch.randn(3, 5, 4, dtype=torch.float64)
        for k, y in enumerate(stacked(x)):
            net = MLP(4, hidden, 2).double()
            linear = [layer for layer in net if isinstance(layer, nn.Linear)]
            for layer, (weights, biases) in zip(linear, stacked.layers(), strict=True):
                weight, bias = (weights, biases) if n == 1 else (weights[k], biases[k])
                layer.weight.data, layer.bias.data = weight.T.data, bias[0].data
            torch.testing.assert_close(y, net(x))

    def test_it_has_the_parameters_of_n_networks_with_the_same_spread_the_last_layers_100_times_smaller(self):
        torch.manual_seed(0)
        stacked, net = StackedMLP(2, 50, (40, 30), 20), MLP(50, (40, 30), 20)
        assert stacked.theta.numel() == 2 * sum(p.numel() for p in net.parameters())
        for layer, (weight, bias) in zip(list(net)[::2], stacked.layers(), strict=True):
            factor = 0.01 if layer is net[-1] else 1.0
            torch.testing.assert_close(weight.std(), factor * layer.weight.std(), rtol=0.1, atol=0)
            bound = factor * layer.weight.shape[1] ** -0.5
            assert 0.8 * bound < bias.abs().max() <= bound

    def test_the_networks_differ(self):
        a, b = StackedMLP(2, 3, (8,), 2)(torch.randn(3))
        assert (a != b).all()

    def test_without_inputs_the_outputs_are_constants(self):
        net = StackedMLP(2, 0, (8,), 3)
        nn.init.normal_(net.theta)
        y = net(torch.zeros(4, 5, 0))
        assert y.shape == (2, 4, 5, 3)
        assert torch.equal(y[:, 0, 0], net.theta)
        assert torch.equal(y, y[:, :1, :1].expand_as(y))

    def test_the_input_is_left_alone(self):
        x = torch.randn(4, 3)
        before = x.clone()
        StackedMLP(2, 3, (8, 8), 1)(x)
        assert torch.equal(x, before)


def test_masked_linear_cuts_what_its_mask_says():
    mask = torch.tensor([[True, False, True], [False, False, False]])
    layer = MaskedLinear(mask)
    jacobian = jacrev(layer)(torch.randn(3))
    assert torch.equal(jacobian != 0, mask)
    assert torch.equal(layer(torch.zeros(3)), layer.bias)


class TestMADE:
    @staticmethod
    def jacobian(net: MADE) -> Tensor:
        """Nonzero where outputs of a coordinate depend on a coordinate: ``[dim, outputs, dim]``."""
        nn.init.uniform_(net.theta, 0.1, 1)  # every ReLU open: what could depend does
        return jacrev(net)(torch.rand(net.dim))

    @pytest.mark.parametrize("dim", [1, 2, 3, 5, 16])
    @pytest.mark.parametrize("hidden", HIDDEN, ids=str)
    @pytest.mark.parametrize("parity", [0, 1])
    def test_outputs_depend_on_earlier_coordinates_alone(self, dim, hidden, parity):
        depends = self.jacobian(MADE(dim, hidden, 3, parity)).abs().sum(1) > 0
        depends = depends.flip(0, 1) if parity else depends
        assert not depends.triu().any()

    @pytest.mark.parametrize("dim", [2, 3, 5, 16])
    @pytest.mark.parametrize("hidden", [(), (24, 24, 24), (15, 40)], ids=str)
    def test_with_a_hidden_unit_of_each_degree_every_earlier_coordinate_is_read(self, dim, hidden):
        depends = (self.jacobian(MADE(dim, hidden, 3)) != 0).all(1)
        assert torch.equal(depends, torch.ones(dim, dim).tril(-1).bool())

    def test_hidden_layers_narrower_than_the_input_still_read_every_coordinate_but_the_last(self):
        depends = self.jacobian(MADE(16, (3,), 2)).abs().sum((0, 1)) > 0
        assert depends[:-1].all()

    @pytest.mark.parametrize("hidden", HIDDEN, ids=str)
    def test_it_computes_a_chain_of_masked_linear_maps(self, hidden):
        net, x = MADE(4, hidden, 2), torch.randn(5, 4)
        chain = []
        for (weight, bias), (mask, _) in zip(net.unpack(net.theta), net.unpack(net.mask), strict=True):
            layer = MaskedLinear(mask.T)
            layer.weight.data, layer.bias.data = weight.T.data, bias[0].data
            chain += [layer, nn.ReLU()]
        torch.testing.assert_close(net(x), nn.Sequential(*chain[:-1])(x).unflatten(-1, (4, 2)))

    @pytest.mark.parametrize("dim", [1, 2, 5])
    @pytest.mark.parametrize("hidden", HIDDEN, ids=str)
    @pytest.mark.parametrize("parity", [0, 1])
    def test_solve_finds_the_fixed_point(self, dim, hidden, parity):
        net, z = MADE(dim, hidden, 2, parity).double(), torch.randn(3, 4, dim, dtype=torch.float64)
        nn.init.normal_(net.theta, std=0.5)
        x, y = net.solve(z, lambda z_i, outputs: (z_i + outputs[..., 0], outputs[..., 1]))
        torch.testing.assert_close(x, z + net(x)[..., 0])
        torch.testing.assert_close(y, net(x)[..., 1])

    def test_the_mask_is_saved_and_not_trained(self):
        net = MADE(3, (8,), 2)
        assert set(net.state_dict()) == {"theta", "mask"}
        assert [name for name, _ in net.named_parameters()] == ["theta"]
