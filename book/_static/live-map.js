// The first figure of *Change of variables*, alive: bend a map, and the density of x = f(z) follows.

const liveMap = (() => {
  "use strict";
  const DECILES = [-1.28155, -0.84162, -0.5244, -0.25335, 0, 0.25335, 0.5244, 0.84162, 1.28155];
  const LEAST = 0.05, MOST = 4; // of the slope: a flatter map has no inverse, a steeper one leaves the panel
  const HIGHEST = 0.7, REACH = 5.2; // of the panels: the density and, up and down, x

  // The map of the chapter with a bend of strength a at every place c: f(z) = z + sum a tanh(2 (z - c)).
  function f(z, bends) {
    return bends.reduce((x, { a, c }) => x + a * Math.tanh(2 * (z - c)), z);
  }

  // Its slope, f'(z) = 1 + sum 2a / cosh²(2 (z - c)).
  function slope(z, bends) {
    return bends.reduce((d, { a, c }) => d + (2 * a) / Math.cosh(2 * (z - c)) ** 2, 1);
  }

  // The density of N(0, 1).
  function pZ(z) {
    return Math.exp(-0.5 * z * z) / Math.sqrt(2 * Math.PI);
  }

  // The density of x = f(z), at x = f(z): change of variables.
  function pX(z, bends) {
    return pZ(z) / slope(z, bends);
  }

  // The area under p_X along x, by trapezoids, and how many hills it has.
  function measure(bends) {
    const z = Live.range(-6, 6, 2400);
    const x = z.map((z) => f(z, bends)), p = z.map((z) => pX(z, bends));
    let area = 0, hills = 0;
    for (let i = 1; i < z.length; i++) {
      area += ((p[i] + p[i - 1]) / 2) * (x[i] - x[i - 1]);
      if (p[i] > p[i - 1] && p[i] >= p[i + 1]) hills += 1;
    }
    return { area, hills };
  }

  const invertible = (bends) => Live.range(-4, 4, 400).every((z) => slope(z, bends) >= LEAST);

  // As far as a bend may go from its a and c towards others while the map keeps an inverse.
  function towards(bends, k, a, c) {
    const { a: a_0, c: c_0 } = bends[k];
    const part = (t) => bends.map((b, j) => (j === k ? { a: a_0 + t * (a - a_0), c: c_0 + t * (c - c_0) } : b));
    let low = 0, high = 1;
    if (invertible(part(1))) return part(1);
    for (let step = 0; step < 30; step++) {
      const t = (low + high) / 2;
      if (invertible(part(t))) low = t;
      else high = t;
    }
    return part(low);
  }

  function draw(stage) {
    const start = () => [{ a: 1, c: 0 }, { a: 0, c: 1.6 }];
    let bends = start(), z = 0.5;

    const map = new Live.Panel(stage, {
      x: [-3.2, 3.2], y: [-REACH, REACH], xTicks: [], yTicks: [], title: "the map x = f(z)",
    });
    const base = new Live.Panel(stage, {
      x: [-3.2, 3.2], y: [0, 0.45], xTicks: [-2, 0, 2], yTicks: [0, 0.2, 0.4], xLabel: "z", yLabel: "p_Z(z)",
    });
    const result = new Live.Panel(stage, {
      x: [HIGHEST, 0], y: [-REACH, REACH], xTicks: [0.6, 0.3], yTicks: [-4, -2, 0, 2, 4],
      xLabel: "p_X(x)", yLabel: "x", title: "the result",
    });
    const colour = (k) => ["blue", "orange"][k % 2];
    const strips = Live.range(0, 9, 9).map((k) => [base.draw(colour(k)), result.draw(colour(k))]);
    const edges = DECILES.map(() => Live.add(stage.back, "path", { class: "faint" }));
    const curve = map.draw("ink");
    const arms = bends.map(() => Live.add(stage.back, "path", { class: "arm" }));
    const way = Live.add(stage.back, "path", { class: "dashed" });

    // Pixels from the middle of a bend to the end of its arm, along the slope there.
    function arm({ c }) {
      const right = map.X(1) - map.X(0), up = map.Y(0) - map.Y(slope(c, bends));
      const scale = Live.clamp(map.width / 5, 46, 56) / Math.hypot(right, up);
      return [right * scale, up * scale];
    }

    const centre = ({ c }) => [map.X(c), map.Y(f(c, bends))];
    const place = (k, c) => (bends = towards(bends, k, bends[k].a, Live.clamp(c, -2.5, 2.5)));
    function steepen(k, d) { // so that the slope in the middle of bend k is d
      const others = slope(bends[k].c, bends) - 2 * bends[k].a;
      bends = towards(bends, k, (Live.clamp(d, LEAST, MOST) - others) / 2, bends[k].c);
    }

    bends.forEach((_, k) => {
      const name = k ? "second bend" : "first bend";
      Live.handle(stage, {
        label: `place of the ${name}`, kind: "green", least: -2.5, most: 2.5,
        at: () => centre(bends[k]),
        move: (X) => place(k, map.x(X)),
        nudge: (right, up) => place(k, bends[k].c + 0.1 * (right + up)),
        value: () => bends[k].c,
        words: () => `at z = ${Live.number(bends[k].c)}`,
      });
      Live.handle(stage, {
        label: `slope in the ${name}`, kind: "green open", least: LEAST, most: MOST,
        at: () => { const [X, Y] = centre(bends[k]), [right, up] = arm(bends[k]); return [X + right, Y - up]; },
        move: (X, Y) => {
          const { c } = bends[k];
          steepen(k, (map.y(Y) - f(c, bends)) / Math.max(map.x(X) - c, 0.01));
        },
        nudge: (right, up) => steepen(k, slope(bends[k].c, bends) + 0.1 * (right + up)),
        value: () => slope(bends[k].c, bends),
        words: () => `slope ${Live.number(slope(bends[k].c, bends))}`,
      });
    });
    const follow = (to) => (z = Live.clamp(to, -3, 3));
    Live.handle(stage, {
      label: "a point z to follow", kind: "black", least: -3, most: 3,
      at: () => [base.X(z), base.Y(0)],
      move: (X) => follow(base.x(X)),
      nudge: (right, up) => follow(z + 0.1 * (right + up)),
      value: () => z,
      words: () => `z = ${Live.number(z)}, x = ${Live.number(f(z, bends))}`,
    });
    Live.button(stage, "Start over", () => { bends = start(); z = 0.5; });

    return {
      layout(width) {
        const side = Math.round(width * 0.3), gap = 30, left = 34, wide = width - side - left - gap - 8;
        const tall = Live.clamp(wide * 0.78, 200, 330), low = tall * 0.42;
        map.place(left + side + gap, 30, wide, tall);
        result.place(left, 30, side, tall);
        base.place(left + side + gap, tall + 66, wide, low);
        return tall + low + 106;
      },
      update() {
        const cuts = [-3.2, ...DECILES, 3.2];
        strips.forEach(([below, beside], k) => {
          const zs = Live.range(cuts[k], cuts[k + 1], k % 9 ? 24 : 80), xs = zs.map((z) => f(z, bends));
          const [z_0, z_1, x_0, x_1] = [zs[0], zs.at(-1), xs[0], xs.at(-1)];
          below.setAttribute("d", base.line([z_0, ...zs, z_1], [0, ...zs.map(pZ), 0]) + "Z");
          beside.setAttribute("d", result.line([0, ...zs.map((z) => pX(z, bends)), 0], [x_0, ...xs, x_1]) + "Z");
        });
        const up = (z, X) => `M${base.X(z)},${base.Y(pZ(z))}V${map.Y(f(z, bends))}H${X}`;
        DECILES.forEach((edge, k) => edges[k].setAttribute("d", up(edge, map.left)));
        const zs = Live.range(-3.2, 3.2, 320);
        curve.setAttribute("d", map.line(zs, zs.map((z) => f(z, bends))));
        arms.forEach((path, k) => {
          const [X, Y] = centre(bends[k]), [right, up] = arm(bends[k]);
          path.setAttribute("d", `M${X - right},${Y + up}L${X + right},${Y - up}`);
        });
        way.setAttribute("d", `M${base.X(z)},${base.Y(0)}` + up(z, result.X(Math.min(pX(z, bends), HIGHEST))));
      },
      words() {
        const { area, hills } = measure(bends), x = f(z, bends), d = slope(z, bends), n = Live.number;
        return `z = ${n(z)} goes to x = ${n(x)}. The slope there is ${n(d)}: an interval becomes ${n(d)} times `
          + `as wide, and the density is ${n(pZ(z), 3)} / ${n(d)} = ${n(pX(z, bends), 3)}. The result has `
          + `${hills} hill${hills === 1 ? "" : "s"} and the area ${n(area, 3)}.`;
      },
    };
  }

  Live.figure("live-map", draw);
  return { f, slope, pZ, pX, measure, towards };
})();
