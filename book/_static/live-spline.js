// A rational-quadratic spline z = g(x) to bend by hand, its log-slope, and the density of x when z is normal.

const liveSpline = (() => {
  "use strict";
  const B = 3; // half the side of the box; outside, g(x) = x
  const FLATTEST = 0.02, STEEPEST = 8, APART = 0.15; // slopes, and the least distance of two knots, by hand

  // z = g(x) and log g'(x) in the bin from (x_0, y_0), of width w and height h, with slopes d_0 and d_1 at its ends.
  function bend(x, x_0, y_0, w, h, d_0, d_1) {
    const s = h / w, xi = (x - x_0) / w, eta = 1 - xi;
    const beta = s + (d_0 + d_1 - 2 * s) * xi * eta;
    const y = y_0 + (h * xi * (s * xi + d_0 * eta)) / beta;
    const slope = (s ** 2 / beta ** 2) * (d_1 * xi ** 2 + 2 * s * xi * eta + d_0 * eta ** 2);
    return [y, Math.log(slope)];
  }

  // The same through knots (xs, ys) with slopes d; the identity outside the box.
  function curve(x, { xs, ys, d }) {
    if (Math.abs(x) >= B) return [x, 0];
    const k = xs.findLastIndex((x_k) => x_k <= x);
    return bend(x, xs[k], ys[k], xs[k + 1] - xs[k], ys[k + 1] - ys[k], d[k], d[k + 1]);
  }

  function logNormal(z) {
    return -0.5 * (z * z + Math.log(2 * Math.PI));
  }

  // log p_X(x) = log p_Z(g(x)) + log g'(x).
  function logDensity(x, knots) {
    const [z, logSlope] = curve(x, knots);
    return logNormal(z) + logSlope;
  }

  // The mass of N(0, 1) left of z: Abramowitz and Stegun (1964), 7.1.26, right to 1e-7.
  function below(z) {
    const u = Math.abs(z) / Math.SQRT2, t = 1 / (1 + 0.3275911 * u);
    const tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    return z > 0 ? 1 - (tail * Math.exp(-u * u)) / 2 : (tail * Math.exp(-u * u)) / 2;
  }

  function draw(stage) {
    const start = () => ({ xs: [-B, -1.4, 0, 1.6, B], ys: [-B, -0.9, 0.3, 1.2, B], d: [1, 1.1, 0.15, 0.9, 1] });
    const straight = () => ({ xs: [-B, -1.5, 0, 1.5, B], ys: [-B, -1.5, 0, 1.5, B], d: [1, 1, 1, 1, 1] });
    let knots = start(), last = 2; // the knot of which the words speak
    const INNER = [1, 2, 3];

    const axis = { x: [-4, 4], xTicks: [-3, 0, 3] };
    const map = new Live.Panel(stage, {
      ...axis, y: [-4, 4], yTicks: [-3, 0, 3], xLabel: "x", yLabel: "z", title: "the spline z = g(x)",
    });
    const density = new Live.Panel(stage, {
      ...axis, y: [0, 0.8], yTicks: [0, 0.4, 0.8], yLabel: "p_X(x)", title: "the density",
    });
    const slopes = new Live.Panel(stage, {
      ...axis, y: [-4, 2.4], yTicks: [-4, -2, 0, 2], xLabel: "x", title: "the log-slope",
    });
    const box = map.draw("faint");
    const fills = ["blue", "orange", "blue", "orange"].map((colour) => density.draw(colour));
    const shares = fills.map(() => Live.add(stage.back, "text", { "text-anchor": "middle", "aria-hidden": true }));
    const stems = INNER.map(() => Live.add(stage.back, "path", { class: "faint" }));
    const [g, p, logSlope] = [map, density, slopes].map((panel) => panel.draw("ink"));
    const level = slopes.draw("faint");
    const arms = INNER.map(() => Live.add(stage.back, "path", { class: "arm" }));

    // Pixels from a knot to the end of its arm.
    function arm(k) {
      const right = map.X(1) - map.X(0), up = map.Y(0) - map.Y(knots.d[k]), scale = 46 / Math.hypot(right, up);
      return [right * scale, up * scale];
    }

    function put(k, x, y) { // between its neighbours
      const { xs, ys } = knots;
      xs[k] = Live.clamp(x, xs[k - 1] + APART, xs[k + 1] - APART);
      ys[k] = Live.clamp(y, ys[k - 1] + APART, ys[k + 1] - APART);
      last = k;
    }

    function tilt(k, d) {
      knots.d[k] = Live.clamp(d, FLATTEST, STEEPEST);
      last = k;
    }

    for (const k of INNER) {
      const spot = () => [map.X(knots.xs[k]), map.Y(knots.ys[k])];
      Live.handle(stage, {
        label: `knot ${k}`, kind: "green", least: -B, most: B,
        at: spot,
        move: (X, Y) => put(k, map.x(X), map.y(Y)),
        nudge: (right, up) => put(k, knots.xs[k] + 0.1 * right, knots.ys[k] + 0.1 * up),
        value: () => knots.ys[k],
        words: () => `x = ${Live.number(knots.xs[k])}, z = ${Live.number(knots.ys[k])}`,
      });
      Live.handle(stage, {
        label: `slope at knot ${k}`, kind: "green open", least: FLATTEST, most: STEEPEST,
        at: () => { const [X, Y] = spot(), [right, up] = arm(k); return [X + right, Y - up]; },
        move: (X, Y) => tilt(k, (map.y(Y) - knots.ys[k]) / Math.max(map.x(X) - knots.xs[k], 0.01)),
        nudge: (right, up) => tilt(k, knots.d[k] * 1.1 ** (right + up)),
        value: () => knots.d[k],
        words: () => `slope ${Live.number(knots.d[k])}`,
      });
    }
    Live.button(stage, "Straight line", () => (knots = straight()));
    Live.button(stage, "Start over", () => (knots = start()));

    return {
      layout(width) {
        const left = 34, two = width >= 560, gap = 46;
        const wide = two ? (width - left - gap - 8) / 2 : width - left - 8;
        const tall = two ? Math.min(wide, 340) : Math.min(wide, 300);
        map.place(left, 30, wide, tall);
        const [x, y] = two ? [left + wide + gap, 30] : [left, tall + 94];
        const upper = two ? tall * 0.56 : 150, lower = two ? tall * 0.44 - 46 : 90;
        density.place(x, y, wide, upper);
        slopes.place(x, y + upper + 46, wide, lower);
        return y + upper + 46 + lower + 40;
      },
      update() {
        const { xs, ys, d } = knots;
        // A grid that holds the knots, so that the corners of the log-slope are drawn where they are.
        const grid = [...Live.range(-4, 4, 400), ...xs].sort((a, b) => a - b);
        const values = grid.map((x) => curve(x, knots));
        const heights = grid.map((x) => Math.exp(logDensity(x, knots)));
        box.setAttribute("d", map.line([-B, B, B, -B, -B], [-B, -B, B, B, -B]));
        g.setAttribute("d", map.line(grid, values.map(([z]) => z)));
        p.setAttribute("d", density.line(grid, heights));
        logSlope.setAttribute("d", slopes.line(grid, values.map(([, log]) => log)));
        level.setAttribute("d", slopes.line([-4, 4], [0, 0]));
        const ends = [-4, ...INNER.map((k) => xs[k]), 4];
        const masses = [0, ...INNER.map((k) => below(ys[k])), 1];
        fills.forEach((fill, k) => {
          const here = grid.map((x, i) => [x, heights[i]]).filter(([x]) => x >= ends[k] && x <= ends[k + 1]);
          const [along, high] = [here.map(([x]) => x), here.map(([, p]) => p)];
          fill.setAttribute("d", density.line([ends[k], ...along, ends[k + 1]], [0, ...high, 0]) + "Z");
          const middle = density.X(Live.clamp((ends[k] + ends[k + 1]) / 2, -3.4, 3.4));
          shares[k].setAttribute("x", middle);
          shares[k].setAttribute("y", density.top + 14);
          const room = density.X(ends[k + 1]) - density.X(ends[k]) > 30;
          shares[k].textContent = room ? `${Math.round(100 * (masses[k + 1] - masses[k]))}%` : "";
        });
        INNER.forEach((k, i) => {
          const X = density.X(xs[k]), [x, y] = [map.X(xs[k]), map.Y(ys[k])], [right, up] = arm(k);
          stems[i].setAttribute("d", `M${X},${density.top + 18}V${slopes.top + slopes.height}`);
          arms[i].setAttribute("d", `M${x - right},${y + up}L${x + right},${y - up}`);
        });
      },
      words() {
        const { xs, ys, d } = knots, k = last, n = Live.number;
        return `Knot ${k} stands at x = ${n(xs[k])}, z = ${n(ys[k])}: ${Math.round(100 * below(ys[k]))}% of the mass `
          + `lies left of it. Its slope is ${n(d[k])}, log-slope ${n(Math.log(d[k]))}, so the density there is `
          + `${n(Math.exp(logNormal(ys[k])), 3)} × ${n(d[k])} = ${n(Math.exp(logDensity(xs[k], knots)), 3)}.`;
      },
    };
  }

  Live.figure("live-spline", draw);
  return { bend, curve, logDensity, below };
})();
