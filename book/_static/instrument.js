// Draw a digit, turn it, and ask one network and a hundred: the instrument of the Preface and of The rotating 9.
//
// Read on: (1) what the file of data holds, (2) a LeNet, and a draw of all its weights from the MNF posterior, (3)
// doubt in nats, (4) from the strokes of a pen to the 28 x 28 pixels that a network sees, (5) the page. Loaded with
// `defer` it takes the place of the still picture in <div class="instrument"> and loads the data beside it, which
// experiments/instrument.py writes. It runs from a file, and asks nothing of anyone.
"use strict";
(() => {
  const SIDE = 28, PEN = 1.1; // pixels of an image, which are the units of the field, and the pen's radius in these
  const SLICE = 12; // milliseconds of work between two frames of the screen

  // 1. The file of data: shapes in words, and all numbers one after the other in one string of bytes.

  function read(data) {
    const text = atob(data.bytes), view = new DataView(new ArrayBuffer(text.length));
    let a = 1, b = 0, at = 0;
    for (let i = 0; i < text.length; i++) {
      view.setUint8(i, text.charCodeAt(i));
      a = (a + view.getUint8(i)) % 65521; // Adler-32, RFC 1950
      b = (b + a) % 65521;
    }
    if (b * 65536 + a !== data.adler32) throw new Error("its checksum is wrong");
    const take = (n, size, value) => {
      const out = new Float32Array(n);
      for (let i = 0; i < n; i++, at += size) out[i] = value(at);
      return out;
    };
    const byte = (i) => view.getUint8(i), float = (i) => view.getFloat32(i, true);
    const half = (i) => { // a bit of sign, 5 of exponent, 10 of fraction
      const h = view.getUint16(i, true), exponent = (h >> 10) & 31, fraction = (h & 1023) / 1024;
      return (h >> 15 ? -1 : 1) * (exponent ? (1 + fraction) * 2 ** (exponent - 15) : fraction * 2 ** -14);
    };
    const size = (shape) => shape.reduce((product, n) => product * n);
    const lenet = data.lenet.map(({ shape }) => ({ W: take(size(shape), 2, half), b: take(shape[0], 4, float) }));
    const mnf = data.mnf.map(({ shape, axis, low, step }) => {
      const mu = take(size(shape), 2, half); // log variances are low + step k, k = 0 ... 255
      const sigma = take(size(shape), 1, byte).map((k) => Math.exp((low + step * k) / 2));
      const m = take(shape[0], 4, float), root_v = take(shape[0], 4, float).map((log_v) => Math.exp(log_v / 2));
      return { mu, sigma, m, root_v, axis, zs: Array.from({ length: data.draws }, () => take(shape[axis], 2, half)) };
    });
    const digits = data.labels.map((label) => ({ label, pixels: take(SIDE * SIDE, 1, byte).map((k) => k / 255) }));
    return { draws: data.draws, start: data.start, lenet, mnf, digits };
  }

  // 2. The networks. A convolution is a dense layer over patches, so one function does both.

  // out[o, p] = b[o] + sum_i W[o, i] X[i, p] for one column p or eight at a time, whose sums stay in registers.
  function affine({ W, b }, X, P) {
    const O = b.length, I = W.length / O, out = new Float64Array(O * P);
    for (let o = 0; o < O; o++) {
      for (let p = 0; p + 8 <= P; p += 8) {
        let s0 = b[o], s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
        for (let i = o * I, x = p; i < (o + 1) * I; i++, x += P) {
          const w = W[i];
          s0 += w * X[x]; s1 += w * X[x + 1]; s2 += w * X[x + 2]; s3 += w * X[x + 3];
          s4 += w * X[x + 4]; s5 += w * X[x + 5]; s6 += w * X[x + 6]; s7 += w * X[x + 7];
        }
        out.set([s0, s1, s2, s3, s4, s5, s6, s7], o * P + p);
      }
      if (P === 1) { out[o] = b[o]; for (let i = 0; i < I; i++) out[o] += W[o * I + i] * X[i]; }
    }
    return out;
  }

  // [C, n, n] -> [25 C, (n - 4)^2]: column p holds the 5 x 5 squares of all maps that output pixel p looks at.
  function patches(x, n) {
    const m = n - 4, C = x.length / (n * n), out = new Float64Array(25 * C * m * m);
    let q = 0;
    for (let c = 0; c < C; c++)
      for (let u = 0; u < 5; u++)
        for (let v = 0; v < 5; v++)
          for (let i = 0; i < m; i++)
            for (let j = 0; j < m; j++) out[q++] = x[(c * n + i + u) * n + j + v];
    return out;
  }

  // [C, n, n] -> [C, n/2, n/2]: ReLU, and the largest of 2 x 2 pixels.
  function pool(x, n) {
    const out = new Float64Array(x.length / 4);
    for (let q = 0, i = 0; q < out.length; i += n)
      for (let j = 0; j < n; j += 2, q++, i += 2) out[q] = Math.max(0, x[i], x[i + 1], x[i + n], x[i + n + 1]);
    return out;
  }

  // The ten probabilities of a network: 28 -> 24 -> 12 -> 8 -> 4 through two convolutions, dense layers, softmax.
  function forward([conv1, conv2, ...dense], patchesOfImage) {
    let h = pool(affine(conv1, patchesOfImage, 24 * 24), 24);
    h = pool(affine(conv2, patches(h, 12), 8 * 8), 8);
    for (const layer of dense) h = affine(layer, h.map((value) => Math.max(0, value)), 1);
    const top = Math.max(...h), e = Array.from(h, (logit) => Math.exp(logit - top)), sum = e.reduce((s, v) => s + v);
    return e.map((value) => value / sum);
  }

  // One draw of a layer, W = z mu + sigma epsilon and b = m + sqrt(v) epsilon. z multiplies the outputs of a
  // convolution (axis 0) or the inputs of a dense layer (axis 1); `normal` gives the epsilons, those of W first.
  function draw({ mu, sigma, m, root_v, axis }, z, normal) {
    const W = new Float32Array(mu.length), fanIn = mu.length / m.length;
    for (let i = 0, o = 0; o < m.length; o++)
      for (let j = 0; j < fanIn; j++, i++) W[i] = z[axis ? j : o] * mu[i] + sigma[i] * normal();
    return { W, b: m.map((mean, o) => mean + root_v[o] * normal()) };
  }

  function randomNormal() { // Marsaglia's polar method
    const a = 2 * Math.random() - 1, b = 2 * Math.random() - 1, r = a * a + b * b;
    return r > 0 && r < 1 ? a * Math.sqrt((-2 * Math.log(r)) / r) : randomNormal();
  }

  // A hundred networks. The layers are independent, so each takes the stored draws of its z in an order of its own.
  function posterior({ mnf, draws }) {
    const order = () => Array.from({ length: draws }, (_, s) => [Math.random(), s]).sort(([a], [b]) => a - b);
    const orders = mnf.map(order), drawn = [];
    return (s) => (drawn[s] ??= mnf.map((layer, l) => draw(layer, layer.zs[orders[l][s][1]], randomNormal)));
  }

  // 3. Doubt: H(p) = -sum p ln p, and the mutual information, which is H of the mean less the mean of H.

  const entropy = (p) => -p.reduce((sum, pc) => sum + (pc > 0 ? pc * Math.log(pc) : 0), 0);
  function doubt(answers) {
    const mean = answers[0].map((_, c) => answers.reduce((sum, p) => sum + p[c], 0) / answers.length);
    const within = answers.reduce((sum, p) => sum + entropy(p), 0) / answers.length;
    return { mean, within, entropy: entropy(mean), disagreement: Math.max(0, entropy(mean) - within) };
  }

  // 4. The image. A stroke is a list of points [x, y] in units of the field, y downwards; angles go against the clock.

  function turn([x, y], degrees) {
    const cos = Math.cos((degrees * Math.PI) / 180), sin = Math.sin((degrees * Math.PI) / 180), c = SIDE / 2;
    return [c + cos * (x - c) + sin * (y - c), c - sin * (x - c) + cos * (y - c)];
  }

  // A pixel is as bright as a round pen covers it, judged by the distance of its centre from the nearest stroke.
  function ink(strokes, radius) {
    const out = new Float32Array(SIDE * SIDE), reach = radius + 0.5;
    const first = (a, b) => Math.max(0, Math.floor(Math.min(a, b) - reach));
    const last = (a, b) => Math.min(SIDE - 1, Math.floor(Math.max(a, b) + reach));
    for (const stroke of strokes)
      stroke.forEach(([bx, by], k) => {
        const [ax, ay] = stroke[Math.max(0, k - 1)], dx = bx - ax, dy = by - ay, square = dx * dx + dy * dy;
        for (let i = first(ay, by); i <= last(ay, by); i++)
          for (let j = first(ax, bx); j <= last(ax, bx); j++) {
            const x = j + 0.5 - ax, y = i + 0.5 - ay;
            const t = square ? Math.min(1, Math.max(0, (x * dx + y * dy) / square)) : 0; // nearest point of the segment
            const grey = Math.min(1, reach - Math.hypot(x - t * dx, y - t * dy));
            if (grey > out[i * SIDE + j]) out[i * SIDE + j] = grey;
          }
      });
    return out;
  }

  // As MNIST was made: the longer side of the digit's box becomes 20 pixels, its centre of mass the image's centre.
  function normalise(strokes) {
    const values = (axis) => strokes.flatMap((stroke) => stroke.map((point) => point[axis]));
    const range = (axis) => [Math.min, Math.max].map((most) => values(axis).reduce((x, y) => most(x, y)));
    const [[left, right], [top, bottom]] = [range(0), range(1)], half = SIDE / 2;
    const scale = 20 / (Math.max(right - left, bottom - top) + 2 * PEN);
    const about = (cx, cy) => strokes.map((s) => s.map(([x, y]) => [half + scale * (x - cx), half + scale * (y - cy)]));
    let mass = 0, mx = 0, my = 0;
    ink(about((left + right) / 2, (top + bottom) / 2), PEN * scale).forEach((grey, q) => {
      mass += grey;
      mx += grey * ((q % SIDE) + 0.5 - half);
      my += grey * (Math.floor(q / SIDE) + 0.5 - half);
    });
    const [x, y] = [(left + right) / 2 + mx / mass / scale, (top + bottom) / 2 + my / mass / scale];
    return { strokes: about(x, y), radius: PEN * scale };
  }

  // A digit of the test set, turned as the book's `plots.rotate` does: bilinear, zeros from outside.
  function turned(pixels, degrees) {
    const at = (i, j) => (i < 0 || j < 0 || i >= SIDE || j >= SIDE ? 0 : pixels[i * SIDE + j]);
    return pixels.map((_, q) => {
      const [x, y] = turn([(q % SIDE) + 0.5, Math.floor(q / SIDE) + 0.5], -degrees);
      const j = Math.floor(x - 0.5), i = Math.floor(y - 0.5), u = x - 0.5 - j, v = y - 0.5 - i;
      return (1 - v) * ((1 - u) * at(i, j) + u * at(i, j + 1)) + v * ((1 - u) * at(i + 1, j) + u * at(i + 1, j + 1));
    });
  }

  // What the networks see of a drawing: a digit of the test set, strokes, or strokes over such a digit.
  function image({ pixels, strokes }, degrees, normalised) {
    const placed = normalised && !pixels && strokes.length ? normalise(strokes) : { strokes, radius: PEN };
    const drawn = ink(placed.strokes.map((s) => s.map((point) => turn(point, degrees))), placed.radius);
    return pixels ? turned(pixels, degrees).map((grey, q) => Math.max(grey, drawn[q])) : drawn;
  }

  const parts = { read, patches, forward, draw, posterior, doubt, image };
  if (typeof module === "object" && module.exports) return (module.exports = parts); // Node: tests against PyTorch

  // 5. The page: a field to draw in, two charts, a curve and sentences. All of it is SVG, so no canvas is needed.

  const DIGITS = [...Array(10).keys()], column = (c) => 38 + 20 * c, height = (p) => 164 - 150 * p;
  const tick = (p) => `<path class="axis" d="M26 ${height(p)}h202"/><text x="22" y="${height(p) + 4}">${p}</text>`;
  const chart = (inside) => `<svg viewBox="0 0 232 188" aria-hidden="true"><path class="label"/>
    ${[0, 0.5, 1].map(tick).join("")}${inside}
    ${DIGITS.map((c) => `<text class="digit" x="${column(c)}" y="182">${c}</text>`).join("")}</svg>`;
  const PAGE = `<div class="pad"><svg class="field" viewBox="0 0 28 28" tabindex="0" role="application"
      aria-label="Field to draw a digit in. The arrow keys move the pen, the space bar puts it down and lifts it.">
      <g class="base"></g><g class="strokes"></g><circle class="pen" r="${PEN}" cx="14" cy="14"/></svg>
      <span class="keys"><button class="undo">Undo</button><button class="clear">Clear</button></span>
      <span class="seen"><svg viewBox="0 0 28 28" aria-hidden="true"></svg>what the networks see</span>
      <label><input type="checkbox" class="mnist" checked>centre and scale, as MNIST does</label>
      <div class="choose" role="group" aria-label="Digits of the test set"></div></div>
    <figure class="one">${chart('<path class="bars"/>')}
      <figcaption><b>LeNet</b>: one network, a bar for each digit</figcaption></figure>
    <figure class="hundred">${chart('<g class="cloud"></g><path class="mean"/>')}
      <figcaption><b>MNF-LeNet</b>: a hundred networks, a dot each, and a line for their average</figcaption></figure>
    <div class="turn"><svg viewBox="0 0 360 100" preserveAspectRatio="none" aria-hidden="true"><path class="now"/>
      <path class="by-within"/><path class="by-one"/><path class="by-entropy"/></svg>
      <input type="range" class="angle" min="0" max="360" value="0" aria-label="Turn the digit">
      <p>Turn: <b class="degrees">0°</b>. Above: entropy of the answer of <b>LeNet</b> and of the mean of the
        <b>hundred</b> where you have been; the dashed line is ln 10, the thin one what is within single networks.</p>
      <button class="play">Turn all the way</button><button class="renew">Draw a new hundred</button></div>
    <div class="said"></div><p class="heard" role="status"></p>`;
  const svgStroke = (stroke) => `<path d="M${stroke.map((point) => point.map((x) => x.toFixed(2))).join("L")}h0"/>`;
  function svgPixels(pixels) { // in eight shades
    const shades = Array(9).fill("");
    pixels.forEach((grey, q) => (shades[Math.round(8 * grey)] += `M${q % SIDE} ${Math.floor(q / SIDE)}h1v1h-1z`));
    return shades.map((d, k) => (k ? `<path d="${d}" opacity="${k / 8}"/>` : "")).join("");
  }
  const most = (p) => p.indexOf(Math.max(...p)), clamp = (x) => Math.min(SIDE, Math.max(0, x));
  const answer = (p) => `${most(p)}, with ${Math.max(...p) > 0.995 ? "over 99" : Math.round(100 * Math.max(...p))}%`;
  function votes(answers) {
    const n = answers.length, count = DIGITS.map((c) => answers.filter((p) => most(p) === c).length);
    const [a, b] = [...DIGITS].sort((c, d) => count[d] - count[c]), rest = n - count[a] - count[b];
    if (count[a] === n) return `All ${n} networks say ${a}`;
    return `Of ${n} networks ${count[a]} say ${a}, ${count[b]} say ${b}${rest ? `, ${rest} another digit` : ""}`;
  }
  function verdict(one, all) {
    const [sure, together] = [one, all.mean].map((p) => Math.max(...p) > 0.9);
    if (together && sure) return `Both are sure${most(one) === most(all.mean) ? "" : ", of different digits"}.`;
    if (together) return "The hundred together are surer than the one.";
    return `${sure ? "The one is sure where the hundred together are not" : "Neither is sure"}. Most of the doubt of ` +
      `the hundred is ${all.disagreement > all.within ? "disagreement" : "within each network"}.`;
  }
  function remark({ pixels, strokes, left }, scaled) { // what is unusual about the drawing
    const points = strokes.flat(), [first] = points;
    if (ink(strokes, PEN).filter((grey) => grey > 0.5).length > 0.6 * SIDE * SIDE)
      return "A full field is no digit. Its ten probabilities must still add up to one: the networks may contradict " +
        "each other, but none of them can answer “none of these”.";
    if (first && !pixels && points.every(([x, y]) => Math.hypot(x - first[0], y - first[1]) < PEN))
      return `A dot is no digit, but every answer must be one.${scaled ? " Scaled to MNIST's box it is a disc." : ""}`;
    if (left) return "A stroke left the field: what lay outside was cut off.";
    const edge = `It touches the edge${scaled && !pixels ? "; scaled, it stands inside" : ", where MNIST has no ink"}.`;
    return points.flat().some((x) => x < PEN || x > SIDE - PEN) ? edge : "";
  }

  function instrument(root, source) {
    const page = Object.assign(document.createElement("div"), { className: "page", innerHTML: PAGE });
    const part = (name) => page.querySelector(`.${name}`), trace = (name, d) => part(name).setAttribute("d", d);
    const field = part("field"), drawing = { pixels: null, label: null, strokes: [], left: false };
    let networks, hundred, asked, running, curve, angle = 0, playing = false, resting;
    let holder = null, spot = [SIDE / 2, SIDE / 2], outside = false; // who holds the pen; that of the keys

    function say(...sentences) {
      part("said").innerHTML = sentences.map((words) => `<p>${words}</p>`).join("");
      clearTimeout(resting);
      resting = setTimeout(() => { part("heard").textContent = sentences.join(" "); }, 800); // read aloud at rest
    }

    // The one answers at once, the hundred in slices of time between two frames of the screen. A question that has
    // begun is answered to its end; then comes the newest.
    function ask() {
      const pixels = image(drawing, angle, part("mnist").checked), empty = !pixels.some((grey) => grey > 0);
      part("base").innerHTML = drawing.pixels ? svgPixels(turned(drawing.pixels, angle)) : "";
      part("strokes").innerHTML = drawing.strokes.map(svgStroke).join("");
      part("strokes").setAttribute("transform", `rotate(${-angle} 14 14)`);
      part("seen").firstChild.innerHTML = svgPixels(pixels);
      trace("now", `M${angle} 0v100`);
      if (!networks) return;
      const squares = patches(pixels, SIDE), one = empty ? [] : forward(networks.lenet, squares);
      trace("bars", one.map((p, c) => `M${column(c) - 8} ${height(0)}v${-150 * p}h16v${150 * p}z`).join(""));
      const stripe = drawing.label === null ? "" : `M${column(drawing.label)} ${height(0)}V${height(1)}`;
      for (const label of page.querySelectorAll(".label")) label.setAttribute("d", stripe);
      part("said").ariaBusy = !empty;
      asked = { squares, one, angle, curve, answers: [] };
      if (!empty) return running || step((running = asked));
      running = null;
      play(false);
      trace("mean", "");
      part("cloud").innerHTML = "<path/>".repeat(networks.draws);
      say("Nothing to answer yet: draw a digit in the field, or take one of those below.");
    }
    function step(run) {
      for (const until = performance.now() + SLICE; run.answers.length < networks.draws; ) {
        const s = run.answers.length, p = forward(hundred(s), run.squares), aside = ((s * 0.618) % 1) * 14 - 7;
        run.answers.push(p);
        part("cloud").children[s].setAttribute("d", p.map((pc, c) => `M${column(c) + aside} ${height(pc)}h0`).join(""));
        if (performance.now() > until) return requestAnimationFrame(() => running === run && step(run));
      }
      const all = doubt(run.answers);
      trace("mean", all.mean.map((p, c) => `M${column(c) - 8} ${height(p)}h16`).join(""));
      run.curve.set(run.angle, { one: entropy(run.one), ...all });
      plot();
      say(`One LeNet says ${answer(run.one)}; the entropy of its answer is ${entropy(run.one).toFixed(2)} nats.`,
        `${votes(run.answers)}; their average says ${answer(all.mean)}. Its entropy is ` +
          `${all.entropy.toFixed(2)} nats; ${all.disagreement.toFixed(2)} of these are disagreement.`,
        `${verdict(run.one, all)} ${remark(drawing, part("mnist").checked)}`);
      part("said").ariaBusy = asked !== run;
      running = null;
      if (angle >= 360) play(false);
      if (playing) set(Math.min(360, angle + 10));
      else if (asked !== run) step((running = asked));
    }
    function plot() { // entropy against the angle, as far as the reader has turned
      const angles = [...curve.keys()].sort((a, b) => a - b), to = (k) => (angles[k] - angles[k - 1] <= 20 ? "L" : "M");
      for (const name of ["one", "entropy", "within"])
        trace(`by-${name}`, angles.map((a, k) => `${to(k)}${a} ${97 - 40 * curve.get(a)[name]}h0`).join(""));
    }

    // What the reader does. A drawing that has changed begins another curve.
    function changed() {
      curve = new Map();
      plot();
      ask();
    }
    function set(degrees) {
      part("angle").value = angle = degrees;
      part("angle").setAttribute("aria-valuetext", `${angle} degrees`);
      part("degrees").textContent = `${angle}°`;
      ask();
    }
    function play(on) {
      part("play").textContent = (playing = on) ? "Stop" : "Turn all the way";
    }
    function take(pixels, label) {
      holder = null;
      Object.assign(drawing, { pixels, label, strokes: [], left: false });
      changed();
    }
    function down(who, point) {
      [holder, outside] = [who, false];
      play(false);
      if (!drawing.pixels && !drawing.strokes.length) set(0);
      drawing.strokes.push([turn(point, -angle)]);
      changed();
    }
    function move(point) {
      const inside = point.every((x) => x === clamp(x));
      if (inside && outside) drawing.strokes.push([]);
      if (inside || !outside) drawing.strokes.at(-1).push(turn(point.map(clamp), -angle));
      outside = !inside;
      drawing.left ||= outside;
    }
    const place = ({ clientX, clientY }, box = field.getBoundingClientRect()) =>
      [clientX - box.left, clientY - box.top].map((x) => (x / box.width) * SIDE);
    field.onpointerdown = (event) => {
      if (event.button !== 0 || holder !== null) return;
      field.setPointerCapture(event.pointerId);
      down(event.pointerId, place(event));
    };
    field.onpointermove = (event) => {
      if (holder !== event.pointerId) return;
      for (const each of [...(event.getCoalescedEvents?.() ?? []), event]) move(place(each));
      changed();
    };
    field.onpointerup = field.onpointercancel = (event) => { if (holder === event.pointerId) holder = null; };
    field.onkeydown = (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!way && event.key !== " ") return;
      event.preventDefault();
      spot = spot.map((x, axis) => clamp(x + (way?.[axis] ?? 0)));
      part("pen").setAttribute("transform", `translate(${spot})`);
      if (way) return holder === "keys" && (move(spot), changed());
      if (holder === null) down("keys", spot);
      else if (holder === "keys") holder = null;
      part("heard").textContent = holder === null ? "Pen lifted" : "Pen down";
    };
    part("undo").onclick = () => (drawing.strokes.pop() ? changed() : take(null, null));
    part("clear").onclick = () => { take(null, null); set(0); };
    part("mnist").onchange = changed;
    part("angle").oninput = (event) => { play(false); set(+event.target.value); };
    part("play").onclick = () => { play(!playing); if (playing) set(0); };
    part("renew").onclick = () => { hundred = networks && posterior(networks); changed(); };
    changed();
    for (const still of root.children) still.hidden = true;
    root.append(page);
    say("The networks are on their way.");
    function arrive(loaded) {
      [networks, hundred] = [loaded, posterior(loaded)];
      const { start, digits } = loaded, of = (c) => digits.filter(({ label }) => label === c);
      part("choose").innerHTML = DIGITS.map((c) => `<button aria-label="A handwritten ${c}; press again for another">
        <svg viewBox="0 0 28 28" aria-hidden="true">${svgPixels(of(c)[0].pixels)}</svg></button>`).join("");
      [...part("choose").children].forEach((button, c, _, taken = 0) => {
        button.onclick = () => take(of(c)[taken++ % of(c).length].pixels, c);
      });
      part("cloud").innerHTML = "<path/>".repeat(loaded.draws);
      if (drawing.strokes.length) return ask();
      Object.assign(drawing, digits[start.digit]);
      set(start.angle);
    }
    const fail = ({ type }) => say(`No network can answer: instrument-data.js is ${type ? "missing" : "damaged"}.`);
    source.then((loaded) => requestAnimationFrame(() => arrive(loaded)), fail); // a frame later: reading takes time
  }

  const source = new Promise((resolve, reject) => {
    const script = document.head.appendChild(document.createElement("script"));
    script.onload = () => resolve(window.INSTRUMENT_DATA);
    script.onerror = reject; // with an event, where reading a damaged file throws an error
    script.src = new URL("instrument-data.js", document.currentScript.src);
  }).then(read);
  for (const root of document.querySelectorAll(".instrument")) instrument(root, source);
})();
