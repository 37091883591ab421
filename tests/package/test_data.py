"""Image sets from whole, damaged and missing files; densities that integrate to 1 and know their entropy."""

import gzip
import hashlib
import http.server
import itertools
import math
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from torch import Tensor

from mnf_lite import data
from mnf_lite._extras import torchvision

SMOOTH = ["moons", "blobs", "rings", "pinwheel", "energy1", "energy2", "energy3", "energy4"]
DENSITIES = [*SMOOTH, "checkerboard"]
IMAGE_SETS = {"MNIST": data.mnist, "FashionMNIST": data.fashion_mnist, "KMNIST": data.kmnist}


def idx(content: np.ndarray) -> bytes:
    """The bytes of an idx file, as LeCun's page describes them."""
    kind = {"uint8": 8, "float32": 13}[content.dtype.name]
    header = struct.pack(f">I{content.ndim}I", kind << 8 | content.ndim, *content.shape)
    return header + content.astype(content.dtype.newbyteorder(">")).tobytes()


def random_images(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 28, 28), dtype=np.uint8)


def some_labels(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.uint8) % 10


def write(root: Path, name: str, stem: str, images: bytes, labels: bytes) -> Path:
    raw = root / name / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    (raw / f"{stem}-images-idx3-ubyte").write_bytes(images)
    (raw / f"{stem}-labels-idx1-ubyte").write_bytes(labels)
    return root


@pytest.fixture
def no_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a connection fails at once."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


# ---------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("name", IMAGE_SETS)
@pytest.mark.parametrize(("split", "stem"), [("train", "train"), ("test", "t10k")])
@pytest.mark.usefixtures("no_way_out")
def test_two_uncompressed_files_are_enough_for_a_split(
    tmp_path: Path, name: str, split: str, stem: str
) -> None:
    content = random_images(12)
    write(tmp_path, name, stem, idx(content), idx(some_labels(12)))
    images, labels = IMAGE_SETS[name](split, tmp_path).tensors
    assert images.shape == (12, 1, 28, 28)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert labels.tolist() == [*range(10), 0, 1]
    np.testing.assert_allclose(images.squeeze(1).numpy(), content / 255, atol=1e-7)


@pytest.mark.usefixtures("no_way_out")
def test_root_is_the_argument_then_the_variable_then_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n, folder in enumerate(("cache/mnf_lite", "variable", "argument"), start=1):
        write(tmp_path / folder, "MNIST", "t10k", idx(random_images(n)), idx(some_labels(n)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MNF_LITE_DATA", raising=False)
    assert len(data.mnist("test")) == 1
    monkeypatch.setenv("MNF_LITE_DATA", str(tmp_path / "variable"))
    assert len(data.mnist("test")) == 2
    assert len(data.mnist("test", tmp_path / "argument")) == 3


DAMAGED = {
    "images cut off": (
        idx(random_images(10))[:-1],
        idx(some_labels(10)),
        "images.* damaged or cut off: 7855 bytes",
    ),
    "images empty": (b"", idx(some_labels(10)), "images.* damaged or cut off: 0 bytes"),
    "images not idx": (b"<html>not found</html>", idx(some_labels(10)), "images.* damaged or cut off"),
    "labels cut off": (
        idx(random_images(10)),
        idx(some_labels(10))[:-3],
        "labels.* damaged or cut off: 15 bytes",
    ),
    "labels header": (idx(random_images(10)), b"\0\0\x08\x01\0", "labels.* damaged or cut off: 5 bytes"),
    "float images": (idx(random_images(10).astype("f4")), idx(some_labels(10)), "images.*unsigned bytes"),
    "labels for images": (idx(some_labels(10)), idx(some_labels(10)), "images.* damaged"),
    "other size": (
        idx(random_images(10)[:, :8, :8].copy()),
        idx(some_labels(10)),
        r"\[10, 8, 8\], expected \[N, 28",
    ),
    "no images": (idx(random_images(0)), idx(some_labels(0)), "damaged or cut off: 16 bytes"),
    "fewer labels": (idx(random_images(10)), idx(some_labels(9)), "9 labels, expected 10"),
    "label 10": (idx(random_images(10)), idx(some_labels(10) + 1), "a label 10, expected 0 to 9"),
}


@pytest.mark.parametrize("case", DAMAGED)
@pytest.mark.usefixtures("no_way_out")
def test_a_damaged_file_is_named_in_one_sentence(tmp_path: Path, case: str) -> None:
    images, labels, words = DAMAGED[case]
    write(tmp_path, "MNIST", "t10k", images, labels)
    with pytest.raises(ValueError, match=words) as caught:
        data.mnist("test", tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "load", [data.mnist, data.fashion_mnist, data.kmnist, data.digits, data.mnist_or_digits]
)
def test_an_unknown_split_is_refused(load) -> None:
    with pytest.raises(ValueError, match="'train' or 'test', got 'valid'"):
        load("valid")


@pytest.mark.parametrize("name", IMAGE_SETS)
@pytest.mark.usefixtures("no_way_out")
def test_a_failed_download_says_what_was_tried_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        FileNotFoundError, match=f"{name} is not in .* digits, which needs no download"
    ) as caught:
        IMAGE_SETS[name]("train", tmp_path)
    assert "\n" not in str(caught.value)
    assert all(mirror in str(caught.value) for mirror in getattr(torchvision().datasets, name).mirrors)
    assert "no network in this test" in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() or path.name.startswith(".")]


def test_a_root_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileNotFoundError, match=r"MNIST is not in .*file.*(Not a directory|exists)"):
        data.mnist("test", tmp_path / "file")


class Mirror:
    """A server of archives on this machine that can be made to misbehave."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.stall = threading.Event()  # set: connections are accepted and never answered
        self.stop = threading.Event()
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if mirror.stall.is_set():
                    mirror.stop.wait(20)
                    return
                content = mirror.files[self.path.strip("/")]
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def close(self) -> None:
        self.stop.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """MNIST with 30 training and 20 test images on a server of this machine, known to torchvision's class."""
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    server = Mirror()
    for stem, n in (("train", 30), ("t10k", 20)):
        server.files[f"{stem}-images-idx3-ubyte.gz"] = gzip.compress(idx(random_images(n)))
        server.files[f"{stem}-labels-idx1-ubyte.gz"] = gzip.compress(idx(some_labels(n)))
    sums = [(name, hashlib.md5(content).hexdigest()) for name, content in server.files.items()]
    monkeypatch.setattr(torchvision().datasets.MNIST, "resources", sums)
    monkeypatch.setattr(torchvision().datasets.MNIST, "mirrors", [server.url])
    yield server
    server.close()


def test_missing_files_are_downloaded_once(tmp_path: Path, mirror: Mirror) -> None:
    assert len(data.mnist("test", tmp_path)) == 20
    mirror.files.clear()
    assert len(data.mnist("train", tmp_path)) == 30
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    stems = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    assert names == {f"MNIST/raw/{stem}-ubyte" for stem in stems}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_corrupted_download_is_refused_and_leaves_nothing(tmp_path: Path, mirror: Mirror) -> None:
    mirror.files["t10k-labels-idx1-ubyte.gz"] += b"?"
    with pytest.raises(FileNotFoundError, match="could not be downloaded"):
        data.mnist("test", tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() or path.name.startswith(".")]


def test_a_server_that_never_answers_is_given_up_soon(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "_SILENCE", 0.2)
    mirror.stall.set()
    before = socket.getdefaulttimeout()
    start = time.monotonic()
    with pytest.raises(FileNotFoundError, match="timed out"):
        data.mnist("test", tmp_path)
    assert time.monotonic() - start < 10
    assert socket.getdefaulttimeout() == before


@pytest.mark.usefixtures("no_way_out")
def test_digits_look_like_mnist() -> None:
    images = torch.cat([data.digits(split).tensors[0] for split in ("train", "test")])
    assert images.shape == (1797, 1, 28, 28)
    assert images.dtype == torch.float32
    assert images.min() == 0
    assert images.max() == 1
    edge = torch.cat((images[..., [0, -1], :].flatten(1), images[..., [0, -1]].flatten(1)), 1).amax(1)
    assert edge.max() == 0, "no digit touches the edge"
    assert 0.1 < images.mean() < 0.2, "MNIST's mean is 0.13"
    mass = images.sum((1, 2, 3))
    places = torch.arange(28) - 13.5
    for axis in (2, 3):
        centre = (images.sum((1, 5 - axis)) * places).sum(1) / mass
        assert centre.abs().max() < 0.75, "the centre of mass is the centre of the image"


def test_digits_are_split_alike_in_every_class_and_at_every_call() -> None:
    (train, train_labels), (test, test_labels) = data.digits("train").tensors, data.digits("test").tensors
    assert (len(train), len(test)) == (1347, 450)
    assert train_labels.dtype == test_labels.dtype == torch.int64
    shares = test_labels.bincount() / (test_labels.bincount() + train_labels.bincount())
    assert (shares - 0.25).abs().max() < 0.01
    assert torch.equal(data.digits("train").tensors[0], train)
    assert not {image.numpy().tobytes() for image in train} & {image.numpy().tobytes() for image in test}


def test_digits_are_the_same_whatever_the_default_dtype() -> None:
    images = data.digits("test").tensors[0]
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(data.digits("test").tensors[0], images)
    finally:
        torch.set_default_dtype(torch.float32)


def test_digits_can_be_told_apart_by_their_labels() -> None:
    (train, train_labels), (test, test_labels) = data.digits("train").tensors, data.digits("test").tensors
    nearest = torch.cdist(test.flatten(1), train.flatten(1)).argmin(1)
    assert (train_labels[nearest] == test_labels).float().mean() > 0.95


@pytest.mark.usefixtures("no_way_out")
def test_mnist_or_digits_takes_mnist_only_when_both_splits_are_there(tmp_path: Path) -> None:
    assert data.mnist_or_digits("test", tmp_path)[1] == "digits"
    write(tmp_path, "MNIST", "t10k", idx(random_images(20)), idx(some_labels(20)))
    dataset, name = data.mnist_or_digits("test", tmp_path)
    assert (len(dataset), name) == (450, "digits")
    write(tmp_path, "MNIST", "train", idx(random_images(30)), idx(some_labels(30)))
    dataset, name = data.mnist_or_digits("test", tmp_path)
    assert (len(dataset), name) == (20, "mnist")


# ---------------------------------------------------------------------------------- densities on the plane


@pytest.mark.parametrize("name", DENSITIES)
def test_samples_are_float32_and_follow_the_seed(name: str) -> None:
    density = getattr(data, name)
    state = torch.get_rng_state()
    x = density(1000)
    assert x.shape == (1000, 2)
    assert x.dtype == torch.float32
    assert torch.equal(x, density(1000, seed=0))
    assert not torch.equal(x, density(1000, seed=1))
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"


@pytest.mark.parametrize("name", DENSITIES)
def test_density_integrates_to_1(name: str) -> None:
    density = getattr(data, name)
    left, right, bottom, top = density.box
    steps = 240  # a grid of our own; it too has a line at x_1 = 4, where the energies begin to rise
    across, up = (
        torch.linspace(a, b, steps + 1, dtype=torch.float64)[:-1] + (b - a) / steps / 2
        for a, b in ((left, right), (bottom, top))
    )
    mass = density.log_prob(torch.cartesian_prod(across, up)).exp().sum()
    assert mass * (right - left) * (top - bottom) / steps**2 == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", SMOOTH)
def test_mean_negative_log_likelihood_of_samples_approaches_the_entropy(name: str) -> None:
    density = getattr(data, name)
    nll = -density.log_prob(density(20_000, seed=3).double())
    error = nll.std() / len(nll) ** 0.5
    assert abs(nll.mean() - density.entropy()) < 4 * error
    assert error < 0.01, "the test could not see much"


@pytest.mark.parametrize("name", DENSITIES)
def test_samples_fall_into_cells_as_often_as_the_density_says(name: str) -> None:
    density, n = getattr(data, name), 40_000
    left, right, bottom, top = density.box
    edges = [torch.linspace(a, b, 9, dtype=torch.float64) for a, b in ((left, right), (bottom, top))]
    counts = torch.histogramdd(density(n, seed=5).double(), edges).hist
    fine = 24  # points of the midpoint rule along a side of a cell
    across, up = (
        torch.linspace(a, b, 8 * fine + 1, dtype=torch.float64)[:-1] + (b - a) / fine / 16
        for a, b in ((left, right), (bottom, top))
    )
    p = density.log_prob(torch.cartesian_prod(across, up)).exp().reshape(8, fine, 8, fine).sum((1, 3))
    expected = n * p / p.sum()
    seen = expected > 5
    chi2 = ((counts - expected) ** 2 / expected)[seen].sum()
    assert scipy.stats.chi2.sf(float(chi2), int(seen.sum()) - 1) > 1e-4


@pytest.mark.parametrize("name", SMOOTH)
def test_a_wrong_density_fails_the_entropy_test(name: str) -> None:
    density = getattr(data, name)
    nll = -density.log_prob(1.1 * density(20_000, seed=3).double())
    assert abs(nll.mean() - density.entropy()) > 4 * nll.std() / len(nll) ** 0.5


def test_entropies_with_a_closed_form() -> None:
    assert data.checkerboard.entropy() == pytest.approx(math.log(8), abs=1e-12)
    # eight Gaussians of standard deviation 0.2, which overlap so little that it costs less than a hundredth
    apart = math.log(8) + 1 + math.log(2 * math.pi * 0.2**2)
    assert data.blobs.entropy() == pytest.approx(apart, abs=0.01)
    assert data.blobs.entropy() < apart
    wide = {"curves": lambda u: 10 * data.blobs.curves(u), "box": (-22.0, 22.0, -22.0, 22.0), "step": 0.1}
    far = replace(data.blobs, **wide)
    assert far.entropy() == pytest.approx(apart, abs=1e-10)


@pytest.mark.parametrize("name", SMOOTH)
def test_entropy_does_not_depend_on_the_grid_to_eight_digits(name: str) -> None:
    density = getattr(data, name)
    assert replace(density, step=density.step / 1.3).entropy() == pytest.approx(density.entropy(), abs=1e-8)


def test_entropy_is_computed_once_and_in_less_than_two_seconds_of_one_core() -> None:
    for name in DENSITIES:
        density = replace(getattr(data, name))
        start = time.process_time()
        h = density.entropy()
        assert time.process_time() - start < 2
        start = time.process_time()
        assert density.entropy() == h
        assert time.process_time() - start < 0.01


@pytest.mark.parametrize("point", [(0.0, 1.0), (0.3, 0.2), (1.9, 0.45), (-1.2, -0.3)])
def test_the_density_of_moons_is_the_integral_over_the_angle(point: tuple[float, float]) -> None:
    def along(angle: float) -> float:
        upper = np.array([math.cos(angle), math.sin(angle)])
        lower = np.array([1 - math.cos(angle), 0.5 - math.sin(angle)])
        squares = [np.sum((np.array(point) - centre) ** 2) for centre in (upper, lower)]
        return sum(math.exp(-s / (2 * 0.05**2)) for s in squares) / (2 * math.pi * 0.05**2) / 2 / math.pi

    angles = np.linspace(0, math.pi, 30)
    p = sum(
        scipy.integrate.quad(along, a, b, epsabs=0, epsrel=1e-10)[0] for a, b in itertools.pairwise(angles)
    )
    assert data.moons.log_prob(torch.tensor(point, dtype=torch.float64)) == pytest.approx(
        math.log(p), abs=1e-8
    )


def test_the_density_of_a_ring_is_that_of_a_noisy_circle() -> None:
    # by symmetry the integral over the angle is a Bessel function, p = exp(-(r² + R²)/2σ²) I_0(rR/σ²) / 2πσ²
    r = torch.linspace(0, 3, 31, dtype=torch.float64)
    variance = 0.08**2
    p = sum(
        (-((r - radius) ** 2) / (2 * variance)).exp() * torch.special.i0e(r * radius / variance)
        for radius in (0.8, 1.6, 2.4)
    )
    x = torch.stack((r * math.cos(2), r * math.sin(2)), 1)
    expected = (p / 3 / (2 * math.pi * variance)).log()
    torch.testing.assert_close(data.rings.log_prob(x), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "widths"), [("energy2", 0.4), ("energy3", 0.35 + 0.35), ("energy4", 0.4 + 0.35)]
)
def test_normalisers_of_the_energies_equal_their_closed_form(name: str, widths: float) -> None:
    # across x_2 one or two Gaussians, along x_1 a plateau of length 8 with half a Gaussian at either end
    z = math.sqrt(2 * math.pi) * widths * (8 + 0.4 * math.sqrt(2 * math.pi))
    assert getattr(data, name).log_normaliser == pytest.approx(math.log(z), abs=1e-9)


@pytest.mark.parametrize("z", [(1, 2), (1, 0), (1, -2), (2, -0.5), (2, -3), (1.3, -1), (-3, 1), (-1.5, 0)])
def test_energies_are_those_of_the_paper(z: tuple[float, float]) -> None:
    """Table 1 of VI-NF with the numbers of the standard library."""
    z1, z2 = z
    w1 = math.sin(2 * math.pi * z1 / 4)
    w2 = 3 * math.exp(-0.5 * ((z1 - 1) / 0.6) ** 2)
    w3 = 3 / (1 + math.exp(-(z1 - 1) / 0.3))

    def bump(x: float, width: float) -> float:
        return math.exp(-0.5 * (x / width) ** 2)

    expected = {
        "energy1": 0.5 * ((math.hypot(*z) - 2) / 0.4) ** 2 - math.log(bump(z1 - 2, 0.6) + bump(z1 + 2, 0.6)),
        "energy2": 0.5 * ((z2 - w1) / 0.4) ** 2,
        "energy3": -math.log(bump(z2 - w1, 0.35) + bump(z2 - w1 + w2, 0.35)),
        "energy4": -math.log(bump(z2 - w1, 0.4) + bump(z2 - w1 + w3, 0.35)),
    }
    x = torch.tensor(z, dtype=torch.float64)
    assert {name: float(getattr(data, name).energy(x)) for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("name", ["energy1", "energy2", "energy3", "energy4"])
def test_reverse_kl_of_the_target_to_itself_is_0(name: str) -> None:
    target = getattr(data, name)
    x = target(5000).double()
    torch.testing.assert_close(target.log_prob(x), -target.energy(x) - target.log_normaliser)
    assert target.energy(x).min() > -math.log(2), "the sampler's bound on exp(-U)"


@pytest.mark.parametrize("name", DENSITIES)
def test_log_prob_takes_any_batch_axes_and_keeps_the_type(name: str) -> None:
    density = getattr(data, name)
    x = density(24)
    flat = density.log_prob(x)
    assert flat.dtype == torch.float32
    assert density.log_prob(x.double()).dtype == torch.float64
    torch.testing.assert_close(density.log_prob(x.reshape(2, 3, 4, 2)), flat.reshape(2, 3, 4))
    assert density.log_prob(x[0]).shape == ()
    assert density.log_prob(x[:0]).shape == (0,)


@pytest.mark.parametrize("name", SMOOTH)
def test_log_prob_has_exact_gradients_and_stays_finite_far_out(name: str) -> None:
    density = getattr(data, name)
    x = density(20).double().requires_grad_()
    assert torch.autograd.gradcheck(density.log_prob, x)
    far = torch.tensor([[1e4, -1e4], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    log_p = density.log_prob(far)
    (gradient,) = torch.autograd.grad(log_p.sum(), far)
    assert log_p.isfinite().all()
    assert gradient.isfinite().all()


def test_checkerboard_is_impossible_between_its_squares() -> None:
    outside = torch.tensor([[0.5, -0.5], [3.5, 0.5], [2.0, 2.0], [-2.1, -2.1]])
    assert (data.checkerboard.log_prob(outside) == -math.inf).all()


def test_no_sample_of_the_checkerboard_is_rounded_out_of_its_square(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, 1 - 1e-12, dtype=torch.float64))
    assert data.checkerboard.log_prob(data.checkerboard(100)).isfinite().all()


@pytest.mark.parametrize("n", [0, -3, 2.5, "10"])
def test_a_number_of_points_that_is_none_is_refused(n: object) -> None:
    for sampler in (data.moons, data.checkerboard, data.energy1, data.siggraph):
        with pytest.raises(ValueError, match="n must be a positive integer, got"):
            sampler(n)


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (torch.zeros(5, 3), ValueError, r"\[\.\.\., 2\], got \[5, 3\]"),
        (torch.tensor(1.0), ValueError, r"got \[\]"),
        (torch.zeros(5, 2, dtype=torch.long), TypeError, r"floating-point tensor, got torch\.int64"),
    ],
)
def test_points_that_are_none_are_refused(x: Tensor, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        data.moons.log_prob(x)


def write_points(root: Path, points: np.ndarray) -> Path:
    (root / "Siggraph").mkdir(exist_ok=True)
    np.save(root / "Siggraph" / "siggraph.npy", points)
    return root


def test_siggraph_draws_centred_points_of_the_file(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(3, 1, (50, 2))
    x = data.siggraph(400, seed=1, root=write_points(tmp_path, points))
    assert x.shape == (400, 2)
    assert x.dtype == torch.float32
    centred = torch.from_numpy(points - points.mean(0)).float()
    assert (x.unsqueeze(1) - centred).abs().sum(2).min(1).values.max() < 1e-6
    assert torch.equal(x, data.siggraph(400, seed=1, root=tmp_path))
    assert not torch.equal(x, data.siggraph(400, seed=2, root=tmp_path))


def test_siggraph_names_what_is_wrong_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"siggraph\.npy is missing; set MNF_LITE_DATA"):
        data.siggraph(10, root=tmp_path)
    write_points(tmp_path, np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"float64 \[4, 3\], expected floats \[N, 2\]"):
        data.siggraph(10, root=tmp_path)
    write_points(tmp_path, np.array([["a", "b"]], dtype=object))
    with pytest.raises(ValueError, match="damaged or cut off"):
        data.siggraph(10, root=tmp_path)
    file = tmp_path / "Siggraph" / "siggraph.npy"
    write_points(tmp_path, np.zeros((40, 2)))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="damaged or cut off"):
        data.siggraph(10, root=tmp_path)
