// A trained RealNVP to push points through: eight affine couplings, from noise z to two moons x and back.

const liveCoupling = (() => {
  "use strict";

  // One number in, one out: a network of layers W h + b with ReLUs between them, its parameters in one list.
  function network(theta, hidden) {
    const sizes = [1, ...hidden, 1];
    return (u) => {
      let h = [u], at = 0;
      for (let k = 1; k < sizes.length; k++) {
        const n = sizes[k - 1], m = sizes[k], out = theta.slice(at + n * m, at + n * m + m); // the biases
        for (let i = 0; i < n; i++) for (let o = 0; o < m; o++) out[o] += h[i] * theta[at + i * m + o];
        at += (n + 1) * m;
        h = k < sizes.length - 1 ? out.map((a) => Math.max(a, 0)) : out;
      }
      return h[0];
    };
  }

  // Keeps log-scales within ±7.
  const softBound = (a) => a / (1 + Math.abs(a) / 7);

  // The chain. Coupling k keeps one coordinate and moves the other: x_2 = exp(s(z_1)) z_2 + t(z_1).
  function couplings({ theta, hidden }) {
    return theta.map(([scale, shift], k) => {
      const [a, t] = [network(scale, hidden), network(shift, hidden)];
      return { kept: k % 2, moved: 1 - (k % 2), s: (u) => softBound(a(u)), t };
    });
  }

  // Of n couplings the whole ones, and last a part of one, whose s and t are taken in part: that is a coupling too.
  const part = (n, k) => Math.min(Math.max(n - k, 0), 1);

  // x and log|det dx/dz| after the first n couplings.
  function forward(z, chain, n = chain.length) {
    const x = [...z];
    let logDet = 0;
    chain.slice(0, Math.ceil(n)).forEach(({ kept, moved, s, t }, k) => {
      const share = part(n, k), log = share * s(x[kept]);
      x[moved] = Math.exp(log) * x[moved] + share * t(x[kept]);
      logDet += log;
    });
    return { x, logDet };
  }

  // z and log|det dz/dx|: the same couplings, undone from the last to the first.
  function inverse(x, chain, n = chain.length) {
    const z = [...x];
    let logDet = 0;
    for (let k = Math.ceil(n) - 1; k >= 0; k--) {
      const { kept, moved, s, t } = chain[k], share = part(n, k), log = share * s(z[kept]);
      z[moved] = (z[moved] - share * t(z[kept])) * Math.exp(-log);
      logDet -= log;
    }
    return { z, logDet };
  }

  function logNormal([z_1, z_2]) {
    return -0.5 * (z_1 ** 2 + z_2 ** 2) - Math.log(2 * Math.PI);
  }

  // The same chain with s and t read off tables, fast enough for a picture of the density at every move.
  function tabulated(chain) {
    const us = Live.range(-8, 8, 800);
    const look = (h) => {
      const table = us.map(h);
      return (u) => {
        const at = Live.clamp((u + 8) * 50, 0, 799.999), i = Math.floor(at);
        return table[i] + (at - i) * (table[i + 1] - table[i]);
      };
    };
    return chain.map((layer) => ({ ...layer, s: look(layer.s), t: look(layer.t) }));
  }

  // Points of N(0, I), the same on every visit: a simple generator, and the method of Box and Muller.
  function noise(count) {
    let state = 7;
    const uniform = () => ((state = (state * 48271) % 2147483647) / 2147483647);
    return Array.from({ length: count }, () => {
      const r = Math.sqrt(-2 * Math.log(uniform())), angle = 2 * Math.PI * uniform();
      return [r * Math.cos(angle), r * Math.sin(angle)];
    });
  }

  function draw(stage) {
    if (typeof liveCouplingData === "undefined") throw new Error("its weights did not load");
    const chain = couplings(liveCouplingData), quick = tabulated(chain), K = chain.length;
    const REACH = 2.8, LOW = -2.4, HIGH = 3.2, start = () => [-0.2, -1.5];
    let z = start(), n = K, playing = null;

    const square = (low, high) => ({ x: [low, high], y: [low, high], xTicks: [-2, 0, 2], yTicks: [-2, 0, 2] });
    const left = new Live.Panel(stage, { ...square(-REACH, REACH), xLabel: "z_1", yLabel: "z_2", title: "noise z" });
    const right = new Live.Panel(stage, { ...square(LOW, HIGH), xLabel: "x_1", yLabel: "x_2" });
    const panels = [left, right], CELLS = 72;
    const canvas = Object.assign(document.createElement("canvas"), { width: CELLS, height: CELLS });
    const heats = panels.map((panel) => panel.draw("heat", "image", { preserveAspectRatio: "none" }));
    const lines = Live.range(-2.5, 2.5, 10), along = Live.range(-2.5, 2.5, 50);
    const mesh = lines.flatMap((c) => [along.map((u) => [c, u]), along.map((u) => [u, c])]);
    const grids = panels.map((panel) => panel.draw("faint"));
    const sample = noise(400);
    const dots = panels.map((panel) => sample.map(([z_1]) => {
      const share = Math.round(Live.clamp(50 + 28 * z_1, 0, 100)); // colour says where a point came from
      const style = `fill: color-mix(in oklab, var(--live-orange) ${share}%, var(--live-blue))`;
      return panel.draw("sample", "circle", { r: 2, style });
    }));
    const rest = right.draw("dashed"), trail = right.draw("trail"), stops = right.draw("stops");

    const put = (to) => (z = to.map((u) => Live.clamp(u, -REACH, REACH)));
    const image = () => forward(z, chain, n).x;
    const pull = (to) => put(inverse(to, chain, n).z);
    const point = ([u, v]) => `(${Live.number(u)}, ${Live.number(v)})`;
    Live.handle(stage, {
      label: "the point z", kind: "green", least: -REACH, most: REACH,
      at: () => [left.X(z[0]), left.Y(z[1])],
      move: (X, Y) => put([left.x(X), left.y(Y)]),
      nudge: (across, up) => put([z[0] + 0.1 * across, z[1] + 0.1 * up]),
      value: () => z[1],
      words: () => `z = ${point(z)}`,
    });
    Live.handle(stage, {
      label: "its image x", kind: "green", least: LOW, most: HIGH,
      at: () => { const [u, v] = image().map((x) => Live.clamp(x, LOW, HIGH)); return [right.X(u), right.Y(v)]; },
      move: (X, Y) => pull([right.x(X), right.y(Y)]),
      nudge: (across, up) => { const [u, v] = image(); pull([u + 0.05 * across, v + 0.05 * up]); },
      value: () => Live.clamp(image()[1], LOW, HIGH),
      words: () => `x = ${point(image())}`,
    });
    Live.dial(stage, {
      label: "couplings", least: 0, most: K, step: 0.05,
      get: () => n,
      set: (to) => { stop(); n = to; },
      words: () => `${Live.number(n, n % 1 ? 1 : 0)} of ${K} couplings`,
    });
    const play = Live.button(stage, "Play", () => (playing === null ? run() : stop()));
    Live.button(stage, "Start over", () => { stop(); z = start(); n = K; });

    function stop() {
      cancelAnimationFrame(playing);
      playing = null;
      play.textContent = "Play";
    }

    function run() { // 0.9 seconds a coupling
      if (n >= K) n = 0;
      play.textContent = "Pause";
      let before = performance.now();
      const step = (now) => {
        n = Math.min(n + Math.max(now - before, 0) / 900, K);
        before = now;
        playing = n < K ? requestAnimationFrame(step) : stop();
        stage.refresh();
      };
      playing = requestAnimationFrame(step);
    }

    // The density after n couplings, as ink of growing strength.
    function paint(heat, panel, n) {
      const pen = canvas.getContext("2d"), picture = pen.createImageData(CELLS, CELLS);
      const [r, g, b] = getComputedStyle(stage.svg).color.match(/\d+/g);
      for (let i = 0; i < CELLS; i++) for (let j = 0; j < CELLS; j++) {
        const x = panel.x(panel.left + ((j + 0.5) / CELLS) * panel.width);
        const y = panel.y(panel.top + ((i + 0.5) / CELLS) * panel.height);
        const back = inverse([x, y], quick, n), p = Math.exp(logNormal(back.z) + back.logDet);
        picture.data.set([r, g, b, 190 * (1 - Math.exp(-3 * p))], 4 * (i * CELLS + j));
      }
      pen.putImageData(picture, 0, 0);
      heat.setAttribute("href", canvas.toDataURL());
      const { left: x, top: y, width, height } = panel;
      for (const [name, value] of Object.entries({ x, y, width, height })) heat.setAttribute(name, value);
    }

    let painted = null; // what the pictures show, so that a moved point does not draw them anew
    function show(panel, heat, grid, circles, n) {
      paint(heat, panel, n);
      const bent = mesh.map((line) => line.map((z) => forward(z, quick, n).x));
      grid.setAttribute("d", bent.map((line) => panel.line(line.map(([u]) => u), line.map(([, v]) => v))).join(""));
      sample.forEach((z, i) => {
        const [u, v] = forward(z, quick, n).x;
        circles[i].setAttribute("cx", panel.X(u).toFixed(1));
        circles[i].setAttribute("cy", panel.Y(v).toFixed(1));
      });
    }
    // Where z stands before the first n couplings, between them and after them.
    const way = (n) => [...Array(Math.ceil(n)).keys(), n].map((k) => forward(z, chain, k).x);
    const path = (points) => right.line(points.map(([u]) => u), points.map(([, v]) => v));
    new MutationObserver(() => { painted = null; stage.refresh(); })
      .observe(document.documentElement, { attributeFilter: ["data-theme"] });

    return {
      layout(width) {
        const two = width >= 560, margin = 34, gap = 46;
        const side = two ? (width - margin - gap - 8) / 2 : Math.min(width - margin - 8, 270);
        left.place(margin, 30, side, side);
        right.place(two ? margin + side + gap : margin, two ? 30 : side + 98, side, side);
        painted = null;
        return right.top + side + 40;
      },
      update() {
        if (painted === null) show(left, heats[0], grids[0], dots[0], 0);
        if (painted !== n) show(right, heats[1], grids[1], dots[1], n);
        painted = n;
        right.retitle(`x after ${Live.number(n, n % 1 ? 1 : 0)} of ${K} couplings`);
        rest.setAttribute("d", path(way(K)));
        trail.setAttribute("d", path(way(n)));
        stops.setAttribute("d", way(n).map(([u, v]) => `M${right.X(u)},${right.Y(v)}h0`).join(""));
      },
      words() {
        const { x, logDet } = forward(z, chain, n), log = logNormal(z), d = Live.number;
        return `After ${d(n, n % 1 ? 1 : 0)} of ${K} couplings z = ${point(z)} stands at x = ${point(x)}. `
          + `log p(x) = log p(z) − log-determinant = ${d(log)} − (${d(logDet)}) = ${d(log - logDet)} nats.`;
      },
    };
  }

  Live.figure("live-coupling", draw);
  return { couplings, forward, inverse, tabulated, logNormal };
})();
