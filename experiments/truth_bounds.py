"""The bounds of dense layers in JAX, so that ``experiments.truth`` can train hundreds of small networks.

A step of a network of 50 units is a hundred calls of tiny kernels; compiled as a whole it takes a tenth of
the time. The parameters come from the package's layers under their own names and go back there, and what the
package then says of their bound is stored beside what this module has reached.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("NPROC", "1")

import jax  # after its one thread was said
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Parameters = dict[str, Array]

KL_DRAWS = 4  # of z, for the bound of a step
LOG_2PI = float(np.log(2 * np.pi))


def part(parameters: Mapping[str, Array], name: str) -> Parameters:
    """The parameters of a submodule by the names that they have there."""
    return {
        key.removeprefix(f"{name}."): value for key, value in parameters.items() if key.startswith(f"{name}.")
    }


def chain(parameters: Parameters, z: Array) -> tuple[Array, Array]:
    """``flows.GatedCoupling`` of alternating parity in a row: z and log-determinants."""
    log_det, dim = jnp.zeros(z.shape[:-1]), z.shape[-1]
    for k in range(len({name.split(".")[1] for name in parameters})):
        net = part(parameters, f"flows.{k}.net")
        keep = ((jnp.arange(dim) % 2 == k % 2) & (dim > 1)).astype(z.dtype)
        h = jnp.tanh(keep * z @ net["0.weight"].T + net["0.bias"])
        mean, logit = jnp.split(h @ net["2.weight"].T + net["2.bias"], 2, -1)
        log_gate = (1 - keep) * jax.nn.log_sigmoid(jnp.maximum(logit, -7))
        z = z + jnp.expm1(log_gate) * (z - mean)
        log_det = log_det + log_gate.sum(-1)
    return z, log_det


def sample_z(q: Parameters, key: Array, n: int) -> tuple[Array, Array]:
    """Draws of z, ``[n, D]``, and log q there."""
    eps = jax.random.normal(key, (n, len(q["q0_mean"])))
    z, log_det = chain(part(q, "flow_q"), q["q0_mean"] + eps * jnp.exp(q["q0_log_var"] / 2))
    return z, -((eps**2 + LOG_2PI).sum(-1) + q["q0_log_var"].sum()) / 2 - log_det


def log_r(q: Parameters, z: Array, key: Array) -> Array:
    """The auxiliary posterior at z, for weights drawn given z: the published or the conjugate one."""
    if "r_c" in q:
        mean = (z * q["r_c"]) @ q["weight_mean"].T
        std = jnp.sqrt(jnp.exp(q["weight_log_var"]) @ q["r_c"] ** 2)
        s = jnp.tanh(mean + std * jax.random.normal(key, mean.shape)).mean(-1, keepdims=True)
        z_b, log_det = chain(part(q, "flow_r"), z)
        log_precision = jnp.clip(q["r_b2"] * s, -10, 10)
        square = jnp.exp(log_precision) * (z_b - q["r_b1"] * s) ** 2
        return (log_precision - LOG_2PI - square).sum(-1) / 2 + log_det
    mean, log_var = q.get("r_mean", q["q0_mean"]), q.get("r_log_var", q["q0_log_var"])
    told = jnp.exp(log_var) * (q["weight_mean"] ** 2 * jnp.exp(-q["weight_log_var"])).sum(0)
    square = (z - mean) ** 2 * jnp.exp(-log_var)
    return (jnp.log1p(told) - log_var - LOG_2PI - (square + told) / (1 + told)).sum(-1) / 2


def gaussian_kl(square: Array, log_var: Array) -> Array:
    """KL to N(0, 1) of Gaussians whose squared means have the sum ``square``."""
    return (square + (jnp.expm1(log_var) - log_var).sum()) / 2


def layer(q: Parameters, x: Array, key: Array, dropout: float) -> tuple[Array, Array]:
    """Outputs of a layer, one draw for each row, and its penalty in nats."""
    noise, of_z, of_kl, of_r = jax.random.split(key, 4)
    if "weight" in q:
        kept = jax.random.bernoulli(noise, 1 - dropout, x.shape) / (1 - dropout)
        return (x * kept) @ q["weight"].T + q["bias"], ((q["weight"] ** 2).sum() + (q["bias"] ** 2).sum()) / 2
    scaled, penalty = x, gaussian_kl((q["bias_mean"] ** 2).sum(), q["bias_log_var"])
    squares = (q["weight_mean"] ** 2).sum(0)  # of each input
    if "q0_mean" in q:
        scaled = x * sample_z(q, of_z, len(x))[0]
        z, log_q = sample_z(q, of_kl, KL_DRAWS)
        penalty += (log_q - log_r(q, z, of_r)).mean()
        squares = squares * (z**2).mean(0)
    mean = scaled @ q["weight_mean"].T + q["bias_mean"]
    std = jnp.sqrt(x**2 @ jnp.exp(q["weight_log_var"]).T + jnp.exp(q["bias_log_var"]))
    penalty += gaussian_kl(squares.sum(), q["weight_log_var"])
    return mean + std * jax.random.normal(noise, mean.shape), penalty


def train(
    start: Mapping[str, np.ndarray],
    learned: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    *,
    noise_unit: float,
    dropout: float,
    rates: tuple[float, float],
    steps: int,
    rows: int,
    decay: Sequence[float],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Train M networks of one kind side by side, each on its own data, by Adam as ``fit`` would.

    Args:
        start: parameters by name, ``[M, ...]``: ``first``, ``second`` and ``noise``.
        learned: whether the noise is learned, ``[M]``.
        x: inputs ``[M, N, in]``.
        y: targets, ``[M, N, 1]``, or classes ``[M, N]``.
        noise_unit: log variance of the noise for each unit of ``noise``.
        dropout: of the inputs of the second layer.
        rates: of the means and of the log variances.
        steps: how many.
        rows: draws of examples in a step, with replacement.
        decay: share of the run, at its end, over which the rates fall, and to which share of themselves.

    Returns:
        The parameters, and minus the bound of each step in nats, ``[steps, M]``.
    """
    examples, count = x.shape[1], len(x)

    def objective(q: Parameters, learned: Array, x: Array, y: Array, key: Array) -> Array:
        one, two = jax.random.split(key)
        h, penalty = layer(part(q, "first"), x, one, 0.0)
        out, more = layer(part(q, "second"), jax.nn.relu(h), two, dropout)
        noise = jnp.where(learned, q["noise"], jax.lax.stop_gradient(q["noise"]))[0]
        if y.ndim == 1:
            nll = -jax.nn.log_softmax(out)[jnp.arange(rows), y].mean()
        else:
            log_var = noise_unit * noise
            nll = ((y - out) ** 2 * jnp.exp(-log_var) + log_var + LOG_2PI).mean() / 2
        return examples * nll + penalty + more + learned * noise**2 / 2

    slope = jax.vmap(jax.value_and_grad(objective))

    def move(state: Any, step: Array) -> tuple[Any, Array]:
        q, first, second = state
        pick, *keys = jax.random.split(jax.random.fold_in(jax.random.PRNGKey(0), step), count + 1)
        picked = jax.random.randint(pick, (rows,), 0, examples)
        loss, g = slope(q, learned, x[:, picked], y[:, picked], jnp.stack(keys))
        first = {k: 0.9 * first[k] + 0.1 * g[k] for k in q}
        second = {k: 0.999 * second[k] + 0.001 * g[k] ** 2 for k in q}
        falls = jnp.minimum(1.0, decay[1] + (1 - decay[1]) * (1 - step / steps) / decay[0])
        t = step + 1.0
        scale = falls * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        rate = {k: rates[k.endswith("log_var")] * scale for k in q}
        q = {k: q[k] - rate[k] * first[k] / (jnp.sqrt(second[k]) + 1e-8) for k in q}
        return (q, first, second), loss

    q = {k: jnp.asarray(v) for k, v in start.items()}
    learned, x, y = map(jnp.asarray, (learned, x, y))
    zeros = {k: jnp.zeros_like(v) for k, v in q.items()}
    (q, _, _), losses = jax.jit(lambda s: jax.lax.scan(move, s, jnp.arange(steps)))((q, zeros, zeros))
    return {k: np.array(v) for k, v in q.items()}, np.array(losses)
