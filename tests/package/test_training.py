"""Fit: the bound it minimises, the history it keeps, and what it survives."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from mnf_lite import fit, layers, likelihoods, models, predict, training
from mnf_lite.files import load_tensors
from mnf_lite.flows import AffineConstant, NormalizingFlow

SMALL = (2, 3, 4, 2)

CLASSES = likelihoods.Categorical()

ROOT = str(Path(__file__).parents[2])


def bars(n: int = 60, seed: int = 0) -> TensorDataset:
    """Images of a bright bar: upright is class 0, lying is class 1."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.rand(n, 1, 28, 28, generator=generator) / 4, torch.arange(n) % 2
    for image, label, at in zip(x, y, torch.randint(4, 22, (n,), generator=generator).tolist(), strict=True):
        (image[0] if label else image[0].T)[at : at + 3] = 1
    return TensorDataset(x, y)


def model(kind: type[nn.Module] = models.MNFLeNet, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return kind(SMALL)


def run(network: nn.Module, dataset: Dataset = None, **options: object) -> training.History:
    options = {"epochs": 2, "batch_size": 16, "progress": False} | options
    return fit(network, bars() if dataset is None else dataset, **options)


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def timeless(history: training.History | dict) -> dict:
    figures = dict(history) if isinstance(history, dict) else asdict(history)
    return figures | {"seconds": len(figures["seconds"])}


# ------------------------------------------------------------------------------------- what is learned


@pytest.mark.parametrize("kind", [models.LeNet, models.MNFLeNet, models.MeanFieldLeNet, models.DropoutLeNet])
def test_every_image_model_learns_to_tell_the_bars(kind):
    torch.manual_seed(0)
    network = kind((4, 8, 16, 2))
    history = run(network, bars(256), epochs=8, batch_size=32, lr=1e-2, kl_weight=1e-6)
    images, labels = bars(100, seed=1).tensors
    assert (predict(network, images, 20).mean(0).argmax(-1) == labels).float().mean() > 0.95
    assert history.nll[-1] < history.nll[0]
    assert history.accuracy[-1] > history.accuracy[0]


def test_regression_learns_function_and_noise():
    torch.manual_seed(0)
    x = torch.linspace(-2, 2, 300)[:, None]
    y = torch.cat([x.sin(), x.abs()], dim=1) + torch.tensor([0.2, 0.5]) * torch.randn(300, 2)
    network = models.MNFMLP((1, 20, 2))
    history = run(network, TensorDataset(x, y), epochs=100, batch_size=100, lr=2e-2, kl_weight=1e-5)
    mean = predict(network, x, 50).mean(0)
    assert (mean - torch.cat([x.sin(), x.abs()], dim=1)).square().mean().sqrt() < 0.15
    assert network.noise_std.tolist() == pytest.approx([0.2, 0.5], rel=0.2)
    assert history.accuracy == []


def test_the_loss_is_likelihood_plus_kl_over_n():
    history = run(model(), validation=bars(20, seed=1))
    for loss, nll, kl in zip(history.loss, history.nll, history.kl, strict=True):
        assert loss == pytest.approx(nll + kl / 60, rel=1e-6)
    assert all(len(figures) == 2 for figures in asdict(history).values())
    assert all(seconds > 0 for seconds in history.seconds)


@pytest.mark.parametrize("weight", [0.0, 1e-3, 1.0])
def test_the_first_step_follows_the_gradient_of_the_bound(weight, monkeypatch):
    """The gradient that reaches Adam, against the bound written down here for the whole set."""
    gradients = {}

    def keep(objective, optimizer, loss, where):
        loss.backward()
        gradients.update({name: p.grad.clone() for name, p in objective.model.named_parameters()})

    monkeypatch.setattr(training, "_update", keep)
    dataset, network = bars(16), model(models.MeanFieldLeNet)
    for layer in network.modules():
        if isinstance(layer, layers.BayesianLayer):
            nn.init.constant_(layer.weight_log_var, -40.0)  # no noise worth the name
            nn.init.constant_(layer.bias_log_var, -40.0)
    run(network, dataset, epochs=1, batch_size=16, kl_weight=weight)
    images, labels = dataset.tensors
    network.zero_grad()
    log_p = network(images).log_softmax(-1)[torch.arange(16), labels]
    (-log_p.mean() + weight * layers.kl_divergence(network)).backward()
    for name, parameter in network.named_parameters():
        assert torch.allclose(gradients[name], parameter.grad, atol=1e-5), name


def weights_of_the_kl(monkeypatch, **options):
    seen = []

    class Spy(training._Objective):
        def forward(self, x, y, total, world, kl_weight):
            seen.append(kl_weight)
            return super().forward(x, y, total, world, kl_weight)

    monkeypatch.setattr(training, "_Objective", Spy)
    run(model(), **options)  # 60 images in batches of 16: 4 steps an epoch
    return seen


def test_the_kl_weight_is_one_over_the_number_of_examples(monkeypatch):
    assert weights_of_the_kl(monkeypatch) == [1 / 60] * 8


def test_the_warm_up_is_linear_from_zero(monkeypatch):
    seen = weights_of_the_kl(monkeypatch, kl_weight=2.0, kl_warmup_epochs=1.5)
    assert seen == pytest.approx([0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2, 2])


def test_every_example_is_seen_once_an_epoch_in_an_order_of_its_own(monkeypatch):
    orders = []

    class Spy(training._Objective):
        def forward(self, x, y, total, world, kl_weight):
            orders.append(x[:, 0].int())
            return super().forward(x, y, total, world, kl_weight)

    monkeypatch.setattr(training, "_Objective", Spy)
    numbers = torch.arange(60.0)[:, None]
    run(models.MNFMLP((1, 1)), TensorDataset(numbers, numbers))
    first, second = torch.cat(orders[:4]), torch.cat(orders[4:])
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(60))
    assert not torch.equal(first, second)


# ------------------------------------------------------------------------------------------ randomness


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    networks = [model(), model(), model()]
    histories = [run(network, seed=seed) for network, seed in zip(networks, (7, 7, 8), strict=True)]
    assert timeless(histories[0]) == timeless(histories[1]) != timeless(histories[2])
    assert same(state(networks[0]), state(networks[1]))
    assert not same(state(networks[0]), state(networks[2]))


def test_the_run_neither_uses_nor_moves_the_callers_random_state():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = model()
    torch.manual_seed(1)
    run(first, validation=bars(20, seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = model()
    torch.manual_seed(99)
    run(second, validation=bars(20, seed=1))
    assert same(state(first), state(second))


def test_validation_and_the_bar_do_not_change_the_training(capsys):
    first, second = model(), model()
    run(first)
    run(second, validation=bars(20, seed=1), progress=True)
    assert same(state(first), state(second))
    assert "epoch 2/2" in capsys.readouterr().err


def test_the_bar_shows_loss_likelihood_kl_accuracy_and_time_left(capsys, monkeypatch):
    monkeypatch.setattr(training, "BAR_INTERVAL", 0.0)
    run(model(), progress=True)
    shown = capsys.readouterr().err
    assert all(word in shown for word in ("loss=", "nll=", "kl=", "accuracy=", "<00:0"))


def test_the_bar_of_a_run_shorter_than_its_interval_ends_with_the_figures(capsys, monkeypatch):
    monkeypatch.setattr(training, "BAR_INTERVAL", 1000.0)
    run(model(), progress=True)
    last = capsys.readouterr().err.split("\r")[-1]
    assert all(word in last for word in ("100%", "loss=", "nll=", "kl=", "accuracy="))


@pytest.mark.parametrize("mode", [True, False])
def test_the_mode_of_the_model_is_left_as_it_was_after_a_failure_too(mode):
    network = model().train(mode)
    run(network, validation=bars(20))
    assert network.training is mode
    with pytest.raises(FloatingPointError):
        run(network, lr=1e39)
    assert network.training is mode


class Pairs(Dataset):
    """A data set that is not a TensorDataset."""

    def __len__(self):
        return 60

    def __getitem__(self, i):
        x, y = bars().tensors
        return x[i], int(y[i])


def test_any_map_style_data_set_trains_as_its_tensors_do():
    networks = [model(), model(), model()]
    for network, dataset in zip(networks, (bars(), Subset(bars(), range(60)), Pairs()), strict=True):
        run(network, dataset, epochs=1)
    assert same(state(networks[0]), state(networks[1]))
    assert same(state(networks[0]), state(networks[2]))


# ----------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("kind", [models.LeNet, models.MNFLeNet, models.DropoutLeNet])
def test_a_run_in_two_parts_ends_equal_to_the_bit(kind, tmp_path):
    whole, part = model(kind), model(kind)
    options = {"validation": bars(20, seed=1), "kl_warmup_epochs": 2.5, "decay": 0.0}
    expected = run(whole, epochs=4, **options)
    run(part, epochs=2, checkpoint=tmp_path / "c", **options)
    resumed = model(kind, seed=5)  # its weights come from the checkpoint
    history = run(resumed, epochs=4, checkpoint=tmp_path / "c", **options)
    assert same(state(resumed), state(whole))
    assert timeless(history) == timeless(expected)


def test_a_finished_run_is_loaded_and_not_repeated(tmp_path):
    first, second = model(), model(seed=3)
    history = run(first, checkpoint=tmp_path / "c")
    assert run(second, checkpoint=tmp_path / "c") == history
    assert same(state(first), state(second))


@pytest.mark.parametrize("step", [1, 3, 6])
def test_an_interruption_in_any_epoch_is_mended_by_the_same_call(step, tmp_path, monkeypatch):
    whole, broken = model(), model()
    run(whole, epochs=3)
    steps = iter(range(100))
    update = training._update

    def breaking(*arguments):
        if next(steps) == step:
            raise KeyboardInterrupt
        update(*arguments)

    monkeypatch.setattr(training, "_update", breaking)
    with pytest.raises(KeyboardInterrupt):
        run(broken, epochs=3, checkpoint=tmp_path / "c")
    run(broken, epochs=3, checkpoint=tmp_path / "c")
    assert same(state(broken), state(whole))


KILLED = """
    import json, os, signal, sys, threading, time
    from dataclasses import asdict
    sys.path.insert(0, {tests!r})
    from tests.package.test_training import bars, model, run

    def kill(after):
        while time.process_time() < after:
            time.sleep(1e-3)
        os.kill(os.getpid(), signal.SIGKILL)

    run(model(), epochs=1)  # what torch loads at first use is not part of the time
    network, start = model(), time.process_time()
    threading.Thread(target=kill, args=(start + float('{seconds}'),), daemon=True).start()
    history = run(network, bars(), epochs=12, checkpoint={checkpoint!r}, validation=bars(20, seed=1))
    print(json.dumps([asdict(history), time.process_time() - start]))
"""


def train_and_kill(checkpoint: Path, seconds: float = math.inf) -> list | None:
    """History and seconds of processor time of a run, None if it was killed after so many of them."""
    script = KILLED.format(tests=ROOT, checkpoint=str(checkpoint), seconds=seconds)
    command = [sys.executable, "-c", textwrap.dedent(script)]
    process = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert process.returncode in (0, -signal.SIGKILL), process.stderr
    return json.loads(process.stdout) if process.returncode == 0 else None


def test_a_killed_run_continues_and_ends_equal_to_the_bit(tmp_path):
    """`kill -9` at two random moments, by processor time, which does not depend on what else is running."""
    history, duration = train_and_kill(tmp_path / "whole")
    for _ in range(2):
        assert train_and_kill(tmp_path / "killed", duration * random.uniform(0.1, 0.45)) is None
    continued, _ = train_and_kill(tmp_path / "killed")
    assert timeless(continued) == timeless(history)
    killed, whole = (load_tensors(tmp_path / name)[0] for name in ("killed", "whole"))
    assert same(killed, whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 1e-2}, "lr 0.001, not 0.01"),
        ({"batch_size": 8}, "batch_size 16, not 8"),
        ({"seed": 1}, "seed 0, not 1"),
        ({"kl_weight": 1.0}, "kl_weight .*, not 1.0"),
        ({"kl_warmup_epochs": 1}, "kl_warmup_epochs 0, not 1"),
        ({"dataset": bars(60, seed=1)}, "data of 60 examples .* not of 60 examples"),
        ({"dataset": bars(50)}, "data of 60 examples .* not of 50 examples"),
        ({"network": models.LeNet(SMALL)}, "another model"),
        ({"network": models.MNFLeNet((2, 3, 5, 2))}, "another model"),
        ({"epochs": 1}, r"epochs 2, not 1 \(rates that decay belong .*: decay=0 lets a run go on\)"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_kept(change, message, tmp_path):
    run(model(), checkpoint=tmp_path / "c")
    before = (tmp_path / "c").read_bytes()
    options = {"network": model(), "checkpoint": tmp_path / "c"} | change
    network = options.pop("network")
    weights = state(network)
    with pytest.raises(ValueError, match=message):
        run(network, **options)
    assert same(state(network), weights)
    assert (tmp_path / "c").read_bytes() == before


def test_a_checkpoint_of_more_epochs_is_refused_before_anything_is_loaded(tmp_path):
    run(model(), decay=0.0, checkpoint=tmp_path / "c")
    network = model(seed=3)
    weights = state(network)
    with pytest.raises(ValueError, match="holds 2 epochs already, more than the 1"):
        run(network, epochs=1, decay=0.0, checkpoint=tmp_path / "c")
    assert same(state(network), weights)


def test_what_follows_an_epoch_sees_its_history_and_ends_the_run_by_raising(tmp_path):
    seen = []

    def stop(history):
        seen.append(len(history.loss))
        torch.rand(1)  # changes nothing: an epoch has random numbers of its own
        if len(history.loss) == 2:
            raise StopIteration

    broken, whole = model(), model()
    with pytest.raises(StopIteration):
        run(broken, epochs=3, checkpoint=tmp_path / "c", after_epoch=stop)
    run(broken, epochs=3, checkpoint=tmp_path / "c")
    run(whole, epochs=3)
    assert seen == [1, 2]
    assert same(state(broken), state(whole))


def test_a_folder_in_place_of_a_checkpoint_is_named(tmp_path):
    with pytest.raises(ValueError, match="is a folder; a checkpoint needs the name of a file"):
        run(model(), checkpoint=tmp_path)


def test_a_damaged_checkpoint_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "c"
    run(model(), checkpoint=path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        run(model(), checkpoint=path)
    models.save(model(), path)
    with pytest.raises(ValueError, match="not a checkpoint of fit"):
        run(model(), checkpoint=path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        run(model(), checkpoint=path)


def test_a_full_disk_leaves_the_old_checkpoint_intact(tmp_path):
    """A limit on the size of files stands for the full disk."""
    path = tmp_path / "c"
    run(model(), decay=0.0, checkpoint=path)
    before = path.read_bytes()
    script = f"""
        import resource, sys
        sys.path.insert(0, {ROOT!r})
        from tests.package.test_training import model, run
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            run(model(), epochs=3, decay=0.0, checkpoint={str(path)!r})
        except OSError as error:
            print(error)
    """
    process = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert process.stdout.startswith(f"cannot write {path}"), process
    assert "the old file is intact" in process.stdout
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_stops_the_run_before_it_starts(tmp_path):
    (tmp_path / "file").write_text("")
    network = model()
    before = state(network)
    with pytest.raises(OSError, match="cannot write"):
        run(network, checkpoint=tmp_path / "file" / "c")
    assert same(state(network), before)


# ----------------------------------------------------------------- optimizers, rates, priors, parts of the KL


def rates(monkeypatch, **options):
    """The rates of every step, by group."""
    seen = []

    def keep(objective, optimizer, loss, where, update=training._update):
        seen.append([group["lr"] for group in optimizer.param_groups])
        update(objective, optimizer, loss, where)

    monkeypatch.setattr(training, "_update", keep)
    run(model(models.MeanFieldLeNet), **options)  # 4 steps an epoch
    return seen


def test_log_variances_have_a_rate_of_their_own(monkeypatch):
    assert rates(monkeypatch, lr=1e-3, lr_log_var=3e-2, decay=0.0) == [[1e-3, 3e-2]] * 8
    network = model(models.MeanFieldLeNet)
    run(network, lr=1e-3, lr_log_var=1e-1, epochs=1)
    for name, parameter in network.named_parameters():
        moved = (parameter - model(models.MeanFieldLeNet).get_parameter(name)).abs().max()
        assert (moved > 0.02) == name.endswith("log_var"), name


def test_all_rates_fall_over_the_last_part_of_the_run(monkeypatch):
    seen = rates(monkeypatch, lr=1.0e-3, lr_log_var=2.0e-3, decay=0.5)
    factors = [1, 1, 1, 1, 1, 0.755, 0.51, 0.265]  # to 0.02 where the run ends
    assert [step[0] for step in seen] == pytest.approx([1e-3 * factor for factor in factors])
    assert [step[1] for step in seen] == pytest.approx([2e-3 * factor for factor in factors])


def test_a_schedule_of_ones_own_gives_the_factor_on_all_rates(monkeypatch):
    seen = rates(monkeypatch, lr=1e-3, decay=lambda done: 1 - done)
    assert [step[0] for step in seen] == pytest.approx([1e-3 * (1 - k / 8) for k in range(8)])


def test_unless_named_the_rate_of_log_variances_is_twenty_times_that_of_all_else(monkeypatch):
    assert rates(monkeypatch, lr=1e-3, decay=0.0) == [[1e-3, 2e-2]] * 8
    assert rates(monkeypatch, lr=1e-3, decay=0.0, optimizer=torch.optim.SGD) == [[1e-3]] * 8


def test_rates_fall_by_themselves_at_the_end_of_a_run(monkeypatch):
    seen = rates(monkeypatch, lr=1e-3)
    assert [step[0] for step in seen[:5]] == [1e-3] * 5  # 60 % of 8 steps
    assert seen[7][0] < 0.4e-3


@pytest.mark.parametrize(
    "make",
    [
        lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True),
        lambda groups: torch.optim.SGD(groups),  # whose state holds None
        lambda groups: torch.optim.NAdam(groups),
        lambda groups: torch.optim.Adam(groups, betas=(0.8, 0.9), amsgrad=True),
        torch.optim.Rprop,
        torch.optim.ASGD,
    ],
    ids=["momentum", "SGD", "NAdam", "amsgrad", "Rprop", "ASGD"],
)
def test_any_optimizer_continues_equal_to_the_bit(make, tmp_path):
    options = {"optimizer": make, "lr_log_var": 1e-2, "epochs": 3, "decay": 0.5}
    whole, broken, resumed = (model(models.MeanFieldLeNet) for _ in range(3))
    expected = run(whole, **options)

    def interrupting(*arguments, score=training._score):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(1)
        return score(*arguments)

    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_score", interrupting)
        with pytest.raises(KeyboardInterrupt):
            run(broken, **options, checkpoint=tmp_path / "c", validation=bars(20))
    history = run(resumed, **options, checkpoint=tmp_path / "c", validation=bars(20))
    assert same(state(resumed), state(whole))
    assert history.nll == expected.nll


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decay": 0.25}, "decay 0.5, not 0.25"),
        ({"decay": 0.0}, "decay 0.5, not 0.0"),
        ({"epochs": 3}, "epochs 2, not 3"),  # the decay would have come later
        ({"lr_log_var": 0.1}, "lr_log_var 0.01, not 0.1"),
        ({"optimizer": torch.optim.SGD}, r"optimizer None, not SGD \("),
    ],
)
def test_a_checkpoint_of_other_rates_is_refused(change, message, tmp_path):
    options = {"decay": 0.5, "lr_log_var": 0.01, "checkpoint": tmp_path / "c"}
    run(model(), **options)
    with pytest.raises(ValueError, match=message):
        run(model(), **options | change)


def test_learned_priors_are_set_every_fifty_steps_and_saved(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(training, "update_priors", lambda m: (calls.append(1), layers.update_priors(m)))
    torch.manual_seed(0)
    network = models.MNFLeNet(SMALL, prior_std="learned")
    run(network, batch_size=1, checkpoint=tmp_path / "c")  # 120 steps
    assert len(calls) == 3
    assert all(0 < layer.prior_std < 1 for layer in (network.conv1, network.dense[0]))
    again = models.MNFLeNet(SMALL, prior_std="learned")
    run(again, batch_size=1, checkpoint=tmp_path / "c")
    assert same(state(network), state(again))


@pytest.mark.parametrize("kind", [models.MNFLeNet, models.MeanFieldLeNet, models.LeNet])
def test_the_history_keeps_the_parts_of_the_kl(kind):
    history = run(model(kind))
    for kl, weights, bias, log_q, log_r in zip(
        history.kl, history.kl_weights, history.kl_bias, history.log_q, history.log_r, strict=True
    ):
        assert kl == pytest.approx(weights + bias + log_q - log_r, rel=1e-4, abs=1e-3)
        assert (weights > 0) == (kind is not models.LeNet)
        assert (log_q != 0) == (kind is models.MNFLeNet)


# ------------------------------------------------------------------------------------- loaders and data sets


class Jittered(Dataset):
    """Bars that are made brighter or darker, anew each time."""

    def __len__(self):
        return 60

    def __getitem__(self, i):
        return X[i % 8] * (0.5 + torch.rand(())), Y[i % 8]


@pytest.mark.parametrize(
    "make",
    [
        Jittered,
        lambda: DataLoader(Jittered(), 16, shuffle=True),
        lambda: DataLoader(Jittered(), 16, shuffle=True, generator=torch.Generator().manual_seed(5)),
    ],
    ids=["data set", "loader", "loader with a generator"],
)
def test_augmentation_and_shuffling_continue_equal_to_the_bit(make, tmp_path):
    whole, part = model(), model()
    run(whole, make(), epochs=3, decay=0.0)
    run(part, make(), epochs=1, decay=0.0, checkpoint=tmp_path / "c")
    run(part, make(), epochs=3, decay=0.0, checkpoint=tmp_path / "c")
    assert same(state(whole), state(part))


def test_a_loader_gives_the_number_of_examples_and_batches(monkeypatch):
    loader = DataLoader(bars(), 10, drop_last=True)
    assert len(run(model(), loader, batch_size=10, validation=loader).val_nll) == 2

    class Bare:
        def __len__(self):
            return 6

        def __iter__(self):
            return iter(loader)

    with pytest.raises(ValueError, match=r"Bare does not say how many examples.*kl_weight=1/N"):
        run(model(), Bare())
    run(model(), Bare(), kl_weight=1 / 60)


def test_tokens_and_masks_train_and_a_wrong_batch_is_named():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.last = nn.Embedding(7, 4), layers.MNFLinear(4, 2)
            self.likelihood = likelihoods.Categorical()

        def forward(self, x):
            return self.last((self.table(x["ids"]) * x["mask"][..., None]).mean(1))

    def example(i):
        return {"ids": torch.full((3,), i % 7), "mask": torch.ones(3)}, int(i % 7 > 3)

    history = run(Words(), [example(i) for i in range(60)], epochs=8, lr=0.05, kl_weight=1e-6)
    assert history.accuracy[-1] > 0.9
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.1, got 0\.\.5"):
        run(Words(), [*map(example, range(40)), (example(0)[0], 5)])


# --------------------------------------------------------------------------------------- two processes


TRAIN = """
    import json, os, sys, torch
    from dataclasses import asdict
    sys.path.insert(0, {tests!r})
    from mnf_lite import models, training
    from tests.package.test_training import bars, model, run, state

    torch.set_num_threads(1)
    results = {{}}

    class Spy(training._Objective):
        calls = 0

        def forward(self, *arguments):
            Spy.calls += 1
            if Spy.calls == 1:
                self.start = torch.get_rng_state(), arguments
            return super().forward(*arguments)

    def update(objective, optimizer, loss, where):
        \"""At the first step, keep the gradient that DDP has averaged and the one of this process alone.\"""
        optimizer.zero_grad()
        loss.backward()
        if Spy.calls == 1:
            averaged = [p.grad.clone() for p in objective.parameters()]
            generator, arguments = objective.start
            with torch.random.fork_rng():
                torch.set_rng_state(generator)
                noise = torch.randn(1).item()
                torch.set_rng_state(generator)
                alone = torch.autograd.grad(objective(*arguments)[0], list(objective.parameters()))
            pick = lambda gradients: torch.cat([g.flatten()[:20] for g in gradients]).tolist()
            results[type(objective.model).__name__] = {{
                "averaged": pick(averaged), "alone": pick(alone), "noise": noise
            }}
        optimizer.step()

    training._Objective, training._update = Spy, update
    for kind in (models.LeNet, models.MNFLeNet, models.MeanFieldLeNet, models.DropoutLeNet):
        network, Spy.calls = model(kind), 0
        checkpoint = {folder!r} + kind.__name__
        options = dict(batch_size=16, validation=bars(20, seed=1), decay=0.0, checkpoint=checkpoint)
        history = run(network, bars(33), **options)
        resumed = model(kind)  # by the same call, another epoch
        Spy.calls = 1
        run(resumed, bars(33), **options, epochs=3)
        results[kind.__name__] |= {{
            "history": asdict(history),
            "weights": [p.double().sum().item() for p in network.parameters()],
            "resumed": [p.double().sum().item() for p in resumed.parameters()],
        }}
    with open({folder!r} + os.environ.get("RANK", "0") + ".json", "w") as file:
        json.dump(results, file)
"""


@pytest.fixture(scope="module")
def in_one_process_and_two(tmp_path_factory):
    """What one process found, and what each of two did; 33 images in batches of 16: one process gets none."""
    found = []
    for launcher in ([], ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]):
        folder = tmp_path_factory.mktemp("processes")
        script = folder / "train.py"
        script.write_text(textwrap.dedent(TRAIN).format(tests=ROOT, folder=f"{folder}/"))
        process = subprocess.run(
            [sys.executable, *launcher, str(script)],
            capture_output=True,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ROOT},
            timeout=300,
        )
        assert process.returncode == 0, process.stderr
        found += [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    assert len(found) == 3
    return found


PARALLEL = ["LeNet", "MNFLeNet", "MeanFieldLeNet", "DropoutLeNet"]


@pytest.mark.parametrize("kind", PARALLEL)
def test_the_gradient_is_the_mean_of_those_of_the_processes(in_one_process_and_two, kind):
    _, first, second = (found[kind] for found in in_one_process_and_two)
    assert first["averaged"] == second["averaged"]
    mean = (torch.tensor(first["alone"]) + torch.tensor(second["alone"])) / 2
    assert torch.allclose(torch.tensor(first["averaged"]), mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", PARALLEL)
def test_all_processes_hold_equal_weights_and_figures_and_continue_so(in_one_process_and_two, kind):
    _, first, second = (found[kind] for found in in_one_process_and_two)
    assert first["weights"] == second["weights"]
    assert first["resumed"] == second["resumed"] != first["weights"]
    assert timeless(first["history"]) == timeless(second["history"])


@pytest.mark.parametrize("kind", PARALLEL)
def test_each_process_draws_noise_of_its_own_and_the_first_that_of_one_process(in_one_process_and_two, kind):
    one, first, second = (found[kind]["noise"] for found in in_one_process_and_two)
    assert one == first != second


def test_without_noise_two_processes_do_what_one_does(in_one_process_and_two):
    one, first, _ = (found["LeNet"] for found in in_one_process_and_two)
    assert first["weights"] == pytest.approx(one["weights"], rel=1e-3, abs=1e-4)
    for name, figures in timeless(one["history"]).items():
        assert timeless(first["history"])[name] == pytest.approx(figures, rel=1e-4), name


# ------------------------------------------------------------------------------------------- bad input


def test_a_parameter_that_is_not_finite_is_named():
    network = model()
    with torch.no_grad():
        network.dense[0].weight_mean[0, 0] = math.nan
    with pytest.raises(
        FloatingPointError, match=r"epoch 1, step 1: the parameter dense\.0\.weight_mean is the first"
    ):
        run(network)


def test_a_gradient_that_is_not_finite_is_named_and_the_parameters_are_kept():
    class Overflow(nn.Module):
        def __init__(self):
            super().__init__()
            self.fine, self.scale = nn.Linear(1, 2), nn.Parameter(torch.tensor([100.0]))

        def forward(self, x):
            return self.fine(x) + self.scale.exp()

    network = Overflow()
    before = state(network)
    with pytest.raises(
        FloatingPointError, match=r"the gradient of \w+(\.\w+)? is the first that is not finite"
    ):
        run(network, TensorDataset(torch.rand(8, 1), torch.zeros(8, dtype=torch.int64)), likelihood=CLASSES)
    assert same(state(network), before)


def test_a_gradient_that_is_not_finite_under_a_finite_loss_is_named_before_a_step():
    class Root(nn.Linear):
        def forward(self, x):
            return super().forward(x) + 0 * self.weight.square().sum().sqrt()

    network = Root(1, 2)
    nn.init.zeros_(network.weight)  # where the slope of the root is infinite
    before = state(network)
    with pytest.raises(
        FloatingPointError, match=r"the loss is 0\.\d+ .*step 1: the gradient of weight is the first"
    ):
        run(network, TensorDataset(torch.rand(8, 1), torch.arange(8) % 2), likelihood=CLASSES)
    assert same(state(network), before)


def test_a_step_to_infinity_is_noticed_before_it_is_saved(tmp_path):
    with pytest.raises(FloatingPointError, match=r"after epoch 1 the parameter conv1\.weight is the first"):
        run(model(models.LeNet), batch_size=60, lr=1e39, checkpoint=tmp_path / "c")
    tensors, _ = load_tensors(tmp_path / "c")
    assert all(tensor.isfinite().all() for tensor in tensors.values())


X, Y = bars(8).tensors


@pytest.mark.parametrize(
    ("dataset", "error", "message"),
    [
        (TensorDataset(X[:0], Y[:0]), ValueError, "the data set is empty"),
        (TensorDataset(X), ValueError, r"must be a pair \(x, y\), got 1 entries"),
        (X, ValueError, r"must be a pair \(x, y\), got Tensor"),
        ((X, Y), ValueError, r"TensorDataset\(x, y\), must be a pair \(x, y\), got Tensor"),
        (3, TypeError, r"such as TensorDataset\(x, y\), or be a loader.*, got int"),
        (TensorDataset(X.byte(), Y), TypeError, "images must be floating point.*got torch.uint8"),
        (TensorDataset(X.double(), Y), TypeError, "got torch.float64"),
        (TensorDataset(X / 0, Y), ValueError, "x must be finite"),
        (TensorDataset(X[..., :5], Y), ValueError, r"\[B, 1, 28, 28\]"),
        (TensorDataset(X.expand(-1, 3, -1, -1), Y), ValueError, r"\[B, 1, 28, 28\]"),
        (TensorDataset(X, Y.float()), TypeError, "labels must be int64"),
        (TensorDataset(X, Y[:, None]), ValueError, "labels must be int64 of shape"),
        (TensorDataset(X, Y + 1), ValueError, r"labels must be in 0\.\.1, got 1\.\.2"),
        (TensorDataset(X, Y - 1), ValueError, r"labels must be in 0\.\.1, got -1\.\.0"),
    ],
)
def test_data_that_do_not_fit_the_model_are_refused(dataset, error, message):
    with pytest.raises(error, match=message):
        run(model(), dataset)
    with pytest.raises(error, match=f"validation: .*{message}"):
        run(model(), bars(), validation=dataset)


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        ("lenet", TypeError, "model must be one network, got str"),
        ([nn.Linear(1, 2), nn.Linear(1, 2)], TypeError, "model must be one network, got list"),
        (nn.Flatten(), ValueError, "no parameters to train"),
        (nn.Linear(1, 2).requires_grad_(False), ValueError, "no parameters to train"),
    ],
)
def test_what_cannot_be_trained_is_refused(network, error, message):
    with pytest.raises(error, match=message):
        run(network, bars())


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (torch.zeros(8), ValueError, r"y must have the outputs' shape \[8, 1\], got \[8\]"),
        (torch.zeros(8, 1, dtype=torch.int64), TypeError, "y must be torch.float32"),
        (torch.full((8, 1), math.inf), ValueError, "y must be finite"),
    ],
)
def test_targets_that_do_not_fit_a_regression_are_refused(y, error, message):
    with pytest.raises(error, match=message):
        run(models.MNFMLP((3, 1)), TensorDataset(torch.rand(8, 3), y))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be an integer of at least 1, got 0"),
        ({"epochs": 1.5}, "epochs must be an integer"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"lr": -1}, "lr must be a positive finite number, got -1"),
        ({"lr": 0}, "lr must be a positive finite number, got 0"),
        ({"lr_log_var": 0.0}, "lr_log_var must be a positive finite number, got 0.0"),
        ({"decay": 1.5}, r"decay must be in \[0, 1\] or a function of the fraction done, got 1.5"),
        ({"decay": lambda done: -done}, "decay must give finite factors of at least 0"),
        ({"lr": math.nan}, "lr must be"),
        ({"kl_weight": -0.1}, "kl_weight must be"),
        ({"kl_warmup_epochs": math.inf}, "kl_warmup_epochs must be"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"kl_weight": "auto"}, "kl_weight must be a finite number of at least 0, got 'auto'"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        run(model(), **options)


def test_maximum_likelihood_finds_the_mean_and_deviation_of_a_gaussian():
    points = 3 + 2 * torch.randn(400, 256, 1, dtype=torch.float64)
    density = NormalizingFlow(AffineConstant(1)).double()
    losses = training.maximum_likelihood(density, points, lr=0.05)
    entropy = 0.5 * math.log(2 * math.pi * math.e) + math.log(2)
    assert len(losses) == 400
    assert losses[0] > 4
    assert sum(losses[-50:]) / 50 == pytest.approx(entropy, abs=0.05)
    sample = density.sample((20_000,))
    assert sample.mean().item() == pytest.approx(3, abs=0.2)
    assert sample.std().item() == pytest.approx(2, abs=0.2)
