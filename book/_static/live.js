// What the live figures of the book share: panels with axes, handles for mouse, finger and keyboard, words that are
// read aloud. A figure is a <div class="live" id="…"> and a script that calls Live.figure(id, draw). What stood in
// the div before, a still of the figure, comes back where the figure cannot start.

const Live = (() => {
  "use strict";

  // An element of an SVG, inside another.
  function add(parent, tag, attributes = {}) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return parent.appendChild(element);
  }

  // A label such as "p_X(x)": single letters are italic, an index stands below the line.
  function write(element, label) {
    element.replaceChildren();
    let raised = 0;
    for (const part of label.split(/(\b[a-zA-Z](?:_\w)?\b)/).filter(Boolean)) {
      const [, letter, index] = part.match(/^([a-zA-Z])(?:_(\w))?$/) ?? [];
      const span = add(element, "tspan", raised ? { dy: -raised } : {});
      span.textContent = letter ?? part;
      if (letter) span.setAttribute("class", "math");
      if (index) add(element, "tspan", { class: "math index", dy: 4 }).textContent = index;
      raised = index ? 4 : 0;
    }
  }

  // 1.234 -> "1.23", with a true minus sign and never "−0.00".
  function number(value, digits = 2) {
    const text = value.toFixed(digits);
    return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
  }

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  // n + 1 numbers from low to high.
  const range = (low, high, n) => Array.from({ length: n + 1 }, (_, i) => low + ((high - low) * i) / n);

  // A rectangle with axes: x and y are [from, to] in data, X(x) and Y(y) pixels, x(X) and y(Y) the way back.
  class Panel {
    constructor(stage, { x, y, xTicks, yTicks, xLabel = "", yLabel = "", title = "" }) {
      Object.assign(this, { stage, from: [x[0], y[0]], to: [x[1], y[1]], xTicks, yTicks });
      this.labels = [[xLabel, "middle"], [yLabel, "start"], [title, "middle"]];
      this.axes = add(stage.back, "g", { class: "axes", "aria-hidden": true });
      const clip = `${stage.root.id}-clip-${stage.back.childNodes.length}`;
      this.window = add(add(stage.back, "clipPath", { id: clip }), "rect");
      this.inside = add(stage.back, "g", { "clip-path": `url(#${clip})`, "aria-hidden": true });
    }

    X(x) { return this.left + ((x - this.from[0]) / (this.to[0] - this.from[0])) * this.width; }
    Y(y) { return this.top + this.height - ((y - this.from[1]) / (this.to[1] - this.from[1])) * this.height; }
    x(X) { return this.from[0] + ((X - this.left) / this.width) * (this.to[0] - this.from[0]); }
    y(Y) { return this.from[1] + ((this.top + this.height - Y) / this.height) * (this.to[1] - this.from[1]); }

    // Put the panel somewhere, and draw its axes anew.
    place(left, top, width, height) {
      Object.assign(this, { left, top, width, height });
      const frame = { x: left, y: top, width, height };
      for (const [name, value] of Object.entries(frame)) this.window.setAttribute(name, value);
      this.axes.replaceChildren();
      const bottom = top + height;
      add(this.axes, "path", { d: `M${left},${top}V${bottom}H${left + width}` });
      const text = (x, y, anchor, label, kind) =>
        write(add(this.axes, "text", { x, y, "text-anchor": anchor, class: kind }), label);
      for (const tick of this.xTicks) {
        add(this.axes, "path", { d: `M${this.X(tick)},${bottom}v4` });
        text(this.X(tick), bottom + 17, "middle", String(tick).replace("-", "−"), "tick");
      }
      for (const tick of this.yTicks) {
        add(this.axes, "path", { d: `M${left},${this.Y(tick)}h-4` });
        text(left - 8, this.Y(tick) + 4, "end", String(tick).replace("-", "−"), "tick");
      }
      const places = [[left + width / 2, bottom + 33], [left - 28, top - 13], [left + width / 2, top - 13]];
      this.labels.forEach(([label, anchor], k) => text(...places[k], anchor, label, "label"));
    }

    // Give the placed panel another title.
    retitle(title) {
      this.labels[2][0] = title;
      write(this.axes.lastChild, title);
    }

    // The path through points given as two lists.
    line(xs, ys) {
      return xs.map((x, i) => `${i ? "L" : "M"}${this.X(x).toFixed(1)},${this.Y(ys[i]).toFixed(1)}`).join("");
    }

    draw(kind, tag = "path", attributes = {}) { return add(this.inside, tag, { class: kind, ...attributes }); }
  }

  // A dot to drag, or to move by the arrow keys. at() says where it is, in pixels; move(X, Y) puts it near a pixel;
  // nudge(right, up) takes steps; label, words(), value(), least and most are what a screen reader says.
  function handle(stage, { label, kind, at, move, nudge, words, value, least, most }) {
    const names = { class: `handle ${kind}`, role: "slider", tabindex: 0, "aria-label": label };
    const g = add(stage.front, "g", { ...names, "aria-valuemin": least, "aria-valuemax": most });
    for (const [r, part] of [[22, "reach"], [13, "ring"], [7, "dot"]]) add(g, "circle", { r, class: part });
    let grip = null; // from the pointer to the middle of the dot, while it is held
    stage.grips.push([at, (event) => {
      const [X, Y] = at();
      grip = [X - event.clientX, Y - event.clientY];
      g.setPointerCapture(event.pointerId);
      g.focus({ preventScroll: true });
      event.preventDefault();
    }]);
    g.addEventListener("pointermove", (event) => {
      if (!grip) return;
      move(event.clientX + grip[0], event.clientY + grip[1]);
      stage.refresh();
    });
    for (const end of ["pointerup", "pointercancel"]) g.addEventListener(end, () => (grip = null));
    const steps = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const leaps = { PageUp: [0, 10], PageDown: [0, -10], Home: [-1e4, -1e4], End: [1e4, 1e4] };
    g.addEventListener("keydown", (event) => {
      const step = { ...steps, ...leaps }[event.key];
      if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
      nudge(...step.map((n) => n * (event.shiftKey ? 5 : 1)));
      event.preventDefault();
      stage.refresh();
    });
    stage.handles.push(() => {
      const [X, Y] = at();
      g.setAttribute("transform", `translate(${X.toFixed(1)},${Y.toFixed(1)})`);
      g.setAttribute("aria-valuenow", value().toFixed(2));
      g.setAttribute("aria-valuetext", words());
    });
    return g;
  }

  // Where the reaches of handles overlap, the nearest one is meant.
  function take(stage, event) {
    if (event.button || !event.target.closest(".handle")) return;
    const { left, top } = stage.svg.getBoundingClientRect();
    const distance = ([at]) => Math.hypot(at()[0] - event.clientX + left, at()[1] - event.clientY + top);
    const [, hold] = stage.grips.reduce((best, grip) => (distance(grip) < distance(best) ? grip : best));
    hold(event);
  }

  function element(parent, tag, properties = {}) {
    return parent.appendChild(Object.assign(document.createElement(tag), properties));
  }

  // A button below the figure.
  function button(stage, textContent, press) {
    const made = element(stage.controls, "button", { type: "button", textContent });
    made.addEventListener("click", () => { press(made); stage.refresh(); });
    return made;
  }

  // A dial below the figure: get() and set(value) are its number, words() what is read aloud.
  function dial(stage, { label, least, most, step, get, set, words }) {
    const box = element(stage.controls, "label", { textContent: label });
    const made = element(box, "input", { type: "range", min: least, max: most, step });
    made.addEventListener("input", () => { set(Number(made.value)); stage.refresh(); });
    stage.handles.push(() => {
      made.value = get();
      made.setAttribute("aria-valuetext", words());
    });
    return made;
  }

  // Start a figure. draw(stage) makes its parts and returns what it needs: layout(width), which places the panels
  // and returns the height; update(), which draws the present state; words(), one sentence that says what is seen.
  function figure(id, draw) {
    const root = document.getElementById(id);
    const still = [...root.childNodes];
    root.replaceChildren();
    try {
      const svg = add(root, "svg", { role: "group", "aria-label": root.getAttribute("aria-label") });
      const stage = { root, svg, back: add(svg, "g"), front: add(svg, "g"), handles: [], grips: [] };
      svg.addEventListener("pointerdown", (event) => take(stage, event));
      stage.controls = element(root, "div", { className: "controls" });
      const seen = element(root, "p", { className: "words", ariaHidden: "true" });
      const heard = element(root, "p", { className: "frame-announcement", role: "status" });
      const { layout, update, words } = draw(stage);
      let waiting;
      stage.refresh = () => {
        update();
        for (const show of stage.handles) show();
        seen.textContent = words();
        clearTimeout(waiting); // a figure that moves is not interrupted by its own words
        waiting = setTimeout(() => (heard.textContent = seen.textContent), 700);
      };
      let width = 0;
      const fit = () => {
        if (root.clientWidth === width || !root.clientWidth) return;
        width = root.clientWidth;
        const height = layout(width);
        svg.setAttribute("width", width);
        svg.setAttribute("height", height);
        stage.refresh();
      };
      fit();
      new ResizeObserver(fit).observe(root);
    } catch (error) {
      root.replaceChildren(...still);
      element(root, "p", { textContent: `This figure cannot move: ${error.message}.`, role: "status" });
    }
  }

  return { Panel, add, button, clamp, dial, figure, handle, number, range };
})();
