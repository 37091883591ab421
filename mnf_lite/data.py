"""Data of the book: images of digits and garments, densities on the plane and their exact entropies."""

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from http.client import HTTPException
from math import log, pi
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample
from torch.utils.data import TensorDataset

from mnf_lite._extras import sklearn, torchvision

__all__ = [
    "Density2D",
    "blobs",
    "checkerboard",
    "digits",
    "energy1",
    "energy2",
    "energy3",
    "energy4",
    "fashion_mnist",
    "kmnist",
    "mnist",
    "mnist_or_digits",
    "moons",
    "pinwheel",
    "rings",
    "siggraph",
]

# ---------------------------------------------------------------------------------------------------- images

_STEMS = {"train": "train", "test": "t10k"}
_SILENCE = 10.0  # seconds without an answer after which a server counts as unreachable


def mnist(split: str, root: str | Path | None = None) -> TensorDataset:
    """Handwritten digits 0 to 9: 60,000 images for training, 10,000 for testing.

    Args:
        split: ``"train"`` or ``"test"``.
        root: folder that holds ``MNIST/raw``; else the environment variable ``MNF_LITE_DATA``, else a
            folder in the user's cache.  Missing files are downloaded there by torchvision.

    Returns:
        ``TensorDataset(images [N, 1, 28, 28] float32 in [0, 1], labels [N] int64)``.

    Raises:
        ValueError: an unknown split, or a file that is damaged, cut off or holds something else.
        FileNotFoundError: the files are missing and the download failed.

    Source:
        LeCun, Bottou, Bengio and Haffner (1998).
    """
    return _image_set("MNIST", split, root)


def fashion_mnist(split: str, root: str | Path | None = None) -> TensorDataset:
    """Ten kinds of garment in MNIST's format; arguments, result and errors as in :func:`mnist`.

    Source:
        Xiao, Rasul and Vollgraf (2017), ``arXiv:1708.07747``.
    """
    return _image_set("FashionMNIST", split, root)


def kmnist(split: str, root: str | Path | None = None) -> TensorDataset:
    """Ten cursive Japanese characters in MNIST's format; arguments, result and errors as in :func:`mnist`.

    Source:
        Clanuwat et al. (2018), ``arXiv:1812.01718``.
    """
    return _image_set("KMNIST", split, root)


def digits(split: str) -> TensorDataset:
    """The 1,797 handwritten 8x8 digits of scikit-learn, drawn like MNIST's: no file, no network.

    Each digit is scaled to 20x20, its centre of mass put into the middle of 28x28 black pixels.  A quarter,
    the same at every call and with all classes alike, is for testing: 1,347 and 450 images.  Both parts come
    from the same writers, so accuracy on this test set flatters.

    Args:
        split: ``"train"`` or ``"test"``.

    Returns:
        ``TensorDataset(images [N, 1, 28, 28] float32 in [0, 1], labels [N] int64)``.

    Raises:
        ValueError: an unknown split.

    Source:
        Alpaydin and Kaynak (1998), UCI optical recognition of handwritten digits.
    """
    _check_split(split)
    raw = sklearn("datasets").load_digits()
    split_in_two = sklearn("model_selection").train_test_split
    parts = split_in_two(raw.images, raw.target, test_size=0.25, stratify=raw.target, random_state=0)
    images, labels = parts[0::2] if split == "train" else parts[1::2]
    return TensorDataset(_like_mnist(torch.from_numpy(images).float() / 16), torch.from_numpy(labels))


def mnist_or_digits(split: str, root: str | Path | None = None) -> tuple[TensorDataset, str]:
    """MNIST where its files are on disk, else :func:`digits`; never asks the network.

    Args:
        split: ``"train"`` or ``"test"``.
        root: as in :func:`mnist`.

    Returns:
        The data set and its name, ``"mnist"`` or ``"digits"``.

    Raises:
        ValueError: as in :func:`mnist`; a damaged file is not silently replaced.
    """
    _check_split(split)
    # Both splits or neither: a model trained on one set must not be tested on the other.
    if all(path.is_file() for part in _STEMS for path in _image_files("MNIST", part, _resolve(root))):
        return mnist(split, root), "mnist"
    return digits(split), "digits"


def _check_split(split: str) -> None:
    if split not in _STEMS:
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")


def _resolve(root: str | Path | None) -> Path:
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(root or os.environ.get("MNF_LITE_DATA") or caches / "mnf_lite").expanduser()


def _image_files(name: str, split: str, root: Path) -> tuple[Path, Path]:
    raw = root / name / "raw"
    return raw / f"{_STEMS[split]}-images-idx3-ubyte", raw / f"{_STEMS[split]}-labels-idx1-ubyte"


def _image_set(name: str, split: str, root: str | Path | None) -> TensorDataset:
    # Only the two files of the split are read, so a folder with the test files alone serves the test split;
    # torchvision's class would want all four.
    _check_split(split)
    image_file, label_file = _image_files(name, split, _resolve(root))
    if not (image_file.is_file() and label_file.is_file()):
        _download(name, _resolve(root))
    images = _read_idx("read_image_file", image_file)
    labels = _read_idx("read_label_file", label_file)
    if images.shape[1:] != (28, 28):
        raise ValueError(f"{image_file} holds images {list(images.shape)}, expected [N, 28, 28]")
    if len(labels) != len(images):
        raise ValueError(f"{label_file} holds {len(labels)} labels, expected {len(images)}, one an image")
    if labels.max() > 9:
        raise ValueError(f"{label_file} holds a label {labels.max()}, expected 0 to 9")
    return TensorDataset(images.unsqueeze(1).float().div_(255), labels)


def _read_idx(reader: str, path: Path) -> Tensor:
    try:
        content: Tensor = getattr(torchvision().datasets.mnist, reader)(path)
        return content
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged or cut off: {path.stat().st_size} bytes, expected an idx file of unsigned "
            "bytes whose header gives its length; delete it to have it downloaded again"
        ) from error


def _download(name: str, root: Path) -> None:
    dataset = getattr(torchvision().datasets, name)
    try:
        (root / name / "raw").mkdir(parents=True, exist_ok=True)
        # Fetched and checked beside the target, then renamed into it: what lies in the target is whole.
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder, _impatient():
            fetched = Path(dataset(folder, download=True).raw_folder)
            for archive, _ in dataset.resources:
                file = Path(archive).stem
                (fetched / file).replace(root / name / "raw" / file)
    except (OSError, RuntimeError, HTTPException) as error:
        reason = " ".join(str(error).split())
        raise FileNotFoundError(
            f"{name} is not in {root} and could not be downloaded from {' or '.join(dataset.mirrors)} "
            f"({reason}); set MNF_LITE_DATA to a folder that has it, or use digits, which needs no download"
        ) from error


@contextmanager
def _impatient() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _like_mnist(images: Tensor) -> Tensor:
    # [N, 8, 8] -> [N, 1, 28, 28]: bicubic, 8 pixels of ink onto 20, the centre of mass to the centre
    mass = images.sum((1, 2))
    places = (torch.arange(8).to(images) + 0.5) / 4 - 1  # of the pixels, in grid_sample's coordinates
    theta = images.new_zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 28 / 20
    theta[:, 0, 2] = (images.sum(1) * places).sum(1) / mass
    theta[:, 1, 2] = (images.sum(2) * places).sum(1) / mass
    grid = affine_grid(theta, [len(images), 1, 28, 28], align_corners=False)
    soft = grid_sample(images.unsqueeze(1), grid, mode="bicubic", align_corners=False)
    return ((soft - 0.2) / 0.6).clamp(0, 1)  # eight pixels make soft edges, a pen makes hard ones


# ---------------------------------------------------------------------------------- densities on the plane


@dataclass(frozen=True, eq=False)
class Density2D:
    """A density p on the plane that can be sampled, evaluated and integrated.

    ``density(n, seed=0)`` draws points; the same seed gives the same points.

    Args:
        box: left, right, bottom and top of a rectangle outside of which the mass is below 1e-12.
        step: distance of the points at which integrals over the box are taken.
    """

    box: tuple[float, float, float, float]
    step: float

    def __call__(self, n: int, seed: int = 0) -> Tensor:
        """Draw ``n`` points: float32 ``[n, 2]``."""
        _check_count(n)
        return self._draw(n, torch.Generator().manual_seed(seed)).float()

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats, all constants included: ``x [..., 2] -> [...]``, computed in float64.

        Raises:
            TypeError: ``x`` is not a floating-point tensor.
            ValueError: the last axis is not 2.
        """
        if not x.is_floating_point():
            raise TypeError(f"x must be a floating-point tensor, got {x.dtype}")
        if x.shape[-1:] != (2,):
            raise ValueError(f"x must be [..., 2], got {list(x.shape)}")
        # A quadrature over curves takes hundreds of numbers a point: pieces keep the memory small.
        pieces = [self._log_density(piece) for piece in torch.split(x.double().reshape(-1, 2), 1024)]
        return torch.cat(pieces).reshape(x.shape[:-1]).to(x.dtype)

    def entropy(self) -> float:
        r"""Entropy in nats: the lowest expected negative log-likelihood that any model can reach.

        .. math:: H = -\int p(x) \log p(x)\, dx
        """
        return self._entropy

    @cached_property
    def _entropy(self) -> float:
        return self._integral(lambda x: torch.special.entr(self.log_prob(x).exp()))

    def _integral(self, f: Callable[[Tensor], Tensor]) -> float:
        # The midpoint rule, which for a smooth function that vanishes at the border converges exponentially.
        left, right, bottom, top = self.box
        columns, rows = round((right - left) / self.step), round((top - bottom) / self.step)
        across = left + (right - left) * (torch.arange(columns, dtype=torch.float64) + 0.5) / columns
        up = bottom + (top - bottom) * (torch.arange(rows, dtype=torch.float64) + 0.5) / rows
        cell = (right - left) / columns * (top - bottom) / rows
        return float(f(torch.cartesian_prod(across, up)).sum()) * cell

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        raise NotImplementedError

    def _log_density(self, x: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class _NoisyCurves(Density2D):
    """x = γ_c(u) + noise ε: a curve c drawn evenly, u uniform on [0, 1], ε standard normal on the plane.

    p(x) = 1/C Σ_c ∫₀¹ N(x; γ_c(u), noise² 1) du, the integral by Gauss-Legendre quadrature.
    """

    curves: Callable[[Tensor], Tensor]  # u [K] -> γ [C, K, 2]
    noise: float
    nodes: int

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        gamma = self.curves(torch.rand(n, dtype=torch.float64, generator=generator))  # [C, n, 2]
        c = torch.randint(len(gamma), (n,), generator=generator)
        epsilon = torch.randn(n, 2, dtype=torch.float64, generator=generator)
        return gamma[c, torch.arange(n)] + self.noise * epsilon

    def _log_density(self, x: Tensor) -> Tensor:
        u, weights = (a.to(x.device) for a in _gauss_legendre(self.nodes))
        curves = self.curves(u)  # [C, K, 2]
        log_weights = (weights / len(curves)).log().repeat(len(curves))  # [C K]
        gamma = curves.reshape(-1, 2)  # [C K, 2]
        # |x - γ|² = |x|² - 2 x·γ + |γ|² leaves one matrix product to do; float64 can afford the cancellation.
        variance = self.noise**2
        constant = log_weights - gamma.square().sum(1) / (2 * variance)
        exponent = x @ gamma.T / variance + constant  # [B, C K]
        return exponent.logsumexp(1) - x.square().sum(1) / (2 * variance) - log(2 * pi * variance)


@dataclass(frozen=True, eq=False)
class _Pinwheel(Density2D):
    """x = R(θ_k + swirl |y|) y: a Gaussian arm y, one of several, turned further the longer y is.

    Turning by an angle that depends on the radius alone keeps areas, so p(x) is the arms' density at y.
    """

    arms: int
    mean: float  # along the arm
    spread: tuple[float, float]  # standard deviations along the arm and across
    swirl: float

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        y = torch.randn(n, 2, dtype=torch.float64, generator=generator)
        y = y * y.new_tensor(self.spread) + y.new_tensor([self.mean, 0.0])
        k = torch.randint(self.arms, (n,), generator=generator).double()
        return _rotate(y, 2 * pi / self.arms * k + self.swirl * y.norm(dim=1))

    def _log_density(self, x: Tensor) -> Tensor:
        theta = 2 * pi / self.arms * torch.arange(self.arms, dtype=x.dtype, device=x.device)
        y = _rotate(x.unsqueeze(1), -theta - self.swirl * x.norm(dim=1, keepdim=True))  # [B, arms, 2]
        along, across = self.spread
        square = ((y[..., 0] - self.mean) / along) ** 2 + (y[..., 1] / across) ** 2
        return (-square / 2).logsumexp(1) - log(2 * pi * along * across * self.arms)


@dataclass(frozen=True, eq=False)
class _Checkerboard(Density2D):
    """Uniform on the black squares, of side 1, of a board with 4 times 4."""

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        square = torch.randint(8, (n,), generator=generator)
        row, column = square // 2, square % 2 * 2
        corner = torch.stack((column + row % 2, row), 1) - 2
        # Just below 1, so that no point is rounded across the edge of its square when it becomes float32.
        return corner + torch.rand(n, 2, dtype=torch.float64, generator=generator).clamp(max=1 - 2**-22)

    def _log_density(self, x: Tensor) -> Tensor:
        cell = x.floor()
        black = (cell.sum(1) % 2 == 0) & (cell >= -2).all(1) & (cell < 2).all(1)
        return x.new_full((len(x),), -log(8)).masked_fill(~black, -torch.inf)


@dataclass(frozen=True, eq=False)
class Energy2D(Density2D):
    r"""A density with an energy U from table 1 of VI-NF.

    .. math:: p(x) = e^{-U(x)} / Z

    In the table :math:`U_2`, :math:`U_3` and :math:`U_4` run on along :math:`x_1` for ever, so that Z is
    infinite.  Here every U has the term :math:`\tfrac12 \bigl((|x_1| - 4)_+ / 0.4\bigr)^2` added: nothing
    changes on the part of the plane that the paper shows, :math:`|x_1| \le 4`, and beyond it the density
    fades.

    Args:
        box: as in :class:`Density2D`.
        step: as in :class:`Density2D`.
        formula: U before that term, of the two coordinates.

    Source:
        Rezende and Mohamed (2015), ``arXiv:1505.05770``.
    """

    formula: Callable[[Tensor, Tensor], Tensor]

    def energy(self, x: Tensor) -> Tensor:
        """U, the negative logarithm of the density without its constant: ``x [..., 2] -> [...]``."""
        beyond = (x[..., 0].abs() - 4).relu()
        return self.formula(x[..., 0], x[..., 1]) + _bowl(beyond, 0.4)

    @cached_property
    def log_normaliser(self) -> float:
        r"""The constant :math:`\log Z = \log \int e^{-U(x)} dx`, by quadrature."""
        return log(self._integral(lambda x: (-self.energy(x)).exp()))

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        # Rejection from the box, exact because exp(-U) < 2 for all four energies.
        left, right, bottom, top = self.box
        size, corner = torch.tensor([right - left, top - bottom]), torch.tensor([left, bottom])
        accepted = torch.empty(0, 2, dtype=torch.float64)
        while len(accepted) < n:
            u = torch.rand(32 * n, 3, dtype=torch.float64, generator=generator)
            x = corner + size * u[:, :2]
            accepted = torch.cat((accepted, x[2 * u[:, 2] < (-self.energy(x)).exp()]))
        return accepted[:n]

    def _log_density(self, x: Tensor) -> Tensor:
        return -self.energy(x) - self.log_normaliser


@cache
def _gauss_legendre(nodes: int) -> tuple[Tensor, Tensor]:
    roots, weights = np.polynomial.legendre.leggauss(nodes)
    return torch.from_numpy((roots + 1) / 2), torch.from_numpy(weights / 2)  # on [0, 1]


def _check_count(n: int) -> None:
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"n must be a positive integer, got {n!r}")


def _rotate(x: Tensor, angle: Tensor) -> Tensor:
    c, s = angle.cos(), angle.sin()
    return torch.stack((c * x[..., 0] - s * x[..., 1], s * x[..., 0] + c * x[..., 1]), -1)


def _on_circle(angle: Tensor) -> Tensor:
    return torch.stack((angle.cos(), angle.sin()), -1)


def _two_moons(u: Tensor) -> Tensor:
    upper = _on_circle(pi * u)
    return torch.stack((upper, u.new_tensor([1.0, 0.5]) - upper))


def _eight_centres(u: Tensor) -> Tensor:
    centres = 2 * _on_circle(pi / 4 * torch.arange(8, dtype=u.dtype, device=u.device))
    return centres.unsqueeze(1).expand(-1, len(u), -1)


def _three_rings(u: Tensor) -> Tensor:
    return u.new_tensor([0.8, 1.6, 2.4])[:, None, None] * _on_circle(2 * pi * u)


def _u1(a: Tensor, b: Tensor) -> Tensor:
    radius = torch.stack((a, b)).norm(dim=0)
    return _bowl(radius - 2, 0.4) + _least(_bowl(a - 2, 0.6), _bowl(a + 2, 0.6))


def _u2(a: Tensor, b: Tensor) -> Tensor:
    return _bowl(b - _w1(a), 0.4)


def _u3(a: Tensor, b: Tensor) -> Tensor:
    w2 = 3 * (-_bowl(a - 1, 0.6)).exp()
    return _least(_bowl(b - _w1(a), 0.35), _bowl(b - _w1(a) + w2, 0.35))


def _u4(a: Tensor, b: Tensor) -> Tensor:
    w3 = 3 * ((a - 1) / 0.3).sigmoid()
    return _least(_bowl(b - _w1(a), 0.4), _bowl(b - _w1(a) + w3, 0.35))


def _bowl(x: Tensor, width: float) -> Tensor:
    return (x / width) ** 2 / 2


def _least(u: Tensor, v: Tensor) -> Tensor:
    return -torch.logaddexp(-u, -v)  # -log(e^-u + e^-v): where two energies meet, the lower one rules


def _w1(a: Tensor) -> Tensor:
    return (2 * pi * a / 4).sin()


# scikit-learn's half circles with the noise of the published runs; the angle is drawn, not evenly spaced
moons = _NoisyCurves((-1.5, 2.5, -1.0, 1.5), 0.02, _two_moons, noise=0.05, nodes=128)
blobs = _NoisyCurves((-4.0, 4.0, -4.0, 4.0), 0.05, _eight_centres, noise=0.2, nodes=1)
rings = _NoisyCurves((-3.2, 3.2, -3.2, 3.2), 0.04, _three_rings, noise=0.08, nodes=384)
pinwheel = _Pinwheel((-4.5, 4.5, -4.5, 4.5), 0.02, arms=5, mean=1.4, spread=(0.4, 0.12), swirl=0.9)
checkerboard = _Checkerboard((-2.0, 2.0, -2.0, 2.0), 0.05)
# these grids have a line at |x_1| = 4, where the second derivative jumps
energy1 = Energy2D((-6.5, 6.5, -6.5, 6.5), 0.05, _u1)
energy2 = Energy2D((-7.5, 7.5, -5.0, 5.0), 0.05, _u2)
energy3 = Energy2D((-7.5, 7.5, -7.5, 5.0), 0.05, _u3)
energy4 = Energy2D((-7.5, 7.5, -7.5, 5.0), 0.05, _u4)


def siggraph(n: int, seed: int = 0, root: str | Path | None = None) -> Tensor:
    """``n`` of the 9,800 points that spell SIGGRAPH, drawn with replacement and centred, float32 ``[n, 2]``.

    There is no density behind them, so there is no ``log_prob`` and no entropy.

    Args:
        n: number of points.
        seed: of the draw.
        root: folder that holds ``Siggraph/siggraph.npy``; else as in :func:`mnist`, but never downloaded.

    Raises:
        ValueError: ``n`` below 1, or a file that is damaged or holds something else.
        FileNotFoundError: the file is missing.

    Source:
        Jang (2018), github.com/ericjang/normalizing-flows-tutorial.
    """
    _check_count(n)
    path = _resolve(root) / "Siggraph" / "siggraph.npy"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; set MNF_LITE_DATA to a folder that has it, or use moons")
    try:
        points = np.load(path, allow_pickle=False)
    except (EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged or cut off: expected a .npy file of points [N, 2]") from error
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0 or points.dtype.kind != "f":
        raise ValueError(f"{path} holds {points.dtype} {list(points.shape)}, expected floats [N, 2], N > 0")
    index = torch.randint(len(points), (n,), generator=torch.Generator().manual_seed(seed))
    return torch.from_numpy(points - points.mean(0)).float()[index]
