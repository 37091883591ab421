// Loaded in the head of every page, before the deferred scripts of the theme and of MathJax.

// The widget manager sets formulas through the queue of MathJax 2; the pages have MathJax 3.
if (window.MathJax) {
  const Hub = {
    Queue: ([, , element]) => {
      const { startup } = window.MathJax;
      startup.promise = startup.promise.then(() => window.MathJax.typesetPromise([element]));
    },
  };
  window.MathJax.startup = {
    ready() {
      window.MathJax.startup.defaultReady();
      window.MathJax.Hub = Hub;
      window.MathJax.startup.promise.then(fitFormulas);
    },
  };
}

// A page opened from a file may not read other files, so the search lists titles without an extract there.
if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

// What a slider or a button is called when it is read aloud. The widget manager gives a slider no name and
// as its value a position ("4"), where the reader hears the words beside it ("80°"); a picture that a slider brings
// is announced by its alternative text, once the slider rests.
function nameSlider(slider) {
  const handle = slider.querySelector(".noUi-handle");
  const readout = slider.querySelector(".widget-readout");
  if (!handle || handle.ariaLabel) return;
  handle.ariaLabel = slider.querySelector(".widget-label")?.textContent.trim() || "slider";
  if (!readout) return;
  const say = () => {
    const words = readout.textContent.trim();
    if (handle.getAttribute("aria-valuetext") !== words) handle.setAttribute("aria-valuetext", words);
  };
  new MutationObserver(say).observe(readout, { characterData: true, childList: true, subtree: true });
  new MutationObserver(say).observe(handle, { attributeFilter: ["aria-valuetext"] });
  say();
}

function namePlay(play) {
  const names = { "fa-play": "Play", "fa-pause": "Pause", "fa-stop": "Stop", "fa-repeat": "Repeat", "fa-retweet": "Repeat" };
  for (const button of play.querySelectorAll("button")) {
    const name = Object.entries(names).find(([icon]) => button.querySelector(`.${icon}`))?.[1];
    if (name && button.ariaLabel !== name) button.ariaLabel = name;
  }
}

function announceFrames(figure) {
  if (figure.querySelector(".frame-announcement")) return;
  const said = document.createElement("p");
  said.className = "frame-announcement";
  said.role = "status";
  figure.append(said);
  const shown = () => [...figure.querySelectorAll("img")].find((image) => image.offsetParent)?.alt ?? "";
  let before = shown();
  let waiting;
  const listen = () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      if (shown() !== before) said.textContent = before = shown();
    }, 800);
  };
  for (const event of ["keyup", "pointerup", "change", "click"]) figure.addEventListener(event, listen, true);
}

document.addEventListener("DOMContentLoaded", () => {
  const nameAll = () => {
    document.querySelectorAll(".widget-slider").forEach(nameSlider);
    document.querySelectorAll(".widget-play").forEach(namePlay);
    document.querySelectorAll(".widget-subarea:has(.widget-slider)").forEach(announceFrames);
    offerEnlarging();
  };
  nameAll();
  let waiting;
  const soon = () => {
    clearTimeout(waiting);
    waiting = setTimeout(nameAll, 100);
  };
  const article = document.querySelector("article") ?? document.body;
  new MutationObserver(soon).observe(article, { attributeFilter: ["class"], childList: true, subtree: true });
});

// A formula wider than its line is set smaller, down to seven tenths, and scrolls by itself when it is still too wide.
function fitFormulas() {
  for (const formula of document.querySelectorAll("article mjx-container")) {
    formula.style.fontSize = "";
    formula.classList.remove("scrolls", "more-left", "more-right");
    const line = formula.parentElement.closest("div, p, li, dd, dt, td, th, summary, figcaption, section");
    const wide = formula.querySelector("svg")?.getBoundingClientRect().width ?? 0;
    if (!line || !wide || wide <= line.clientWidth || formula.closest("td, th")) continue;
    const size = Math.max(0.7, line.clientWidth / wide - 0.01);
    formula.style.fontSize = `${100 * size}%`;
    formula.classList.toggle("scrolls", wide * size > line.clientWidth);
  }
  signsOfMore();
}

// Whatever scrolls sideways fades where more of it lies, and is reached by keyboard.
const SCROLLERS =
  "article :is(pre, table, .output, .pan, div.math, div.math mjx-container, mjx-container.scrolls, .pst-scrollable-table-container)";
function signOfMore(box) {
  const hidden = box.scrollWidth - box.clientWidth;
  const scrolls = hidden > 1 && getComputedStyle(box).overflowX !== "visible";
  box.classList.toggle("more-left", scrolls && box.scrollLeft > 1);
  box.classList.toggle("more-right", scrolls && box.scrollLeft < hidden - 1);
  if (scrolls && box.tabIndex < 0) box.tabIndex = 0;
}
function signsOfMore() {
  document.querySelectorAll(SCROLLERS).forEach(signOfMore);
}
document.addEventListener("scroll", ({ target }) => target.matches?.(SCROLLERS) && signOfMore(target), true);
document.addEventListener("toggle", signsOfMore, true);
document.addEventListener("click", () => setTimeout(signsOfMore, 400)); // what was folded may be open now
window.addEventListener("load", signsOfMore);
let width = innerWidth;
window.addEventListener("resize", () => {
  if (width === innerWidth) return;
  width = innerWidth;
  fitFormulas();
});

// The bar of a solution opens it wherever it is pressed. The link to its exercise that stands there works once it is open.
document.addEventListener(
  "click",
  (click) => {
    const bar = click.target.closest?.(".admonition.toggle > .admonition-title");
    if (!bar || click.target === bar || click.target.closest("button")) return;
    const closed = bar.parentElement.classList.contains("toggle-hidden");
    if (closed) click.preventDefault();
    click.stopPropagation(); // the script of the bar knows only presses on its empty part
    if (closed || !click.target.closest("a")) bar.querySelector(".toggle-button").click();
  },
  true,
);
document.addEventListener("DOMContentLoaded", () => {
  for (const button of document.querySelectorAll(".toggle-button")) {
    button.ariaLabel = button.parentElement.textContent.trim();
  }
});

// On a phone a picture keeps a width at which a point of its letters is a pixel, the smallest of 8 points 8 pixels high, and
// scrolls by itself. Pictures are drawn at 110 pixels an inch, frames of sliders at 120; an inch has 72 points.
function keepLegible(image) {
  if (image.classList.contains("legible")) return;
  image.classList.add("legible");
  const widget = image.closest(".widget-subarea");
  if (!widget) {
    const pan = document.createElement("div");
    image.replaceWith(pan);
    pan.append(image);
  }
  image.parentElement.classList.add("pan");
  const measure = () => {
    const points = (72 * image.naturalWidth) / (widget ? 120 : 110);
    image.style.setProperty("--legible", `${Math.round(points)}px`);
    signOfMore(image.parentElement);
  };
  if (image.complete && image.naturalWidth) measure();
  else image.addEventListener("load", measure, { once: true });
}

// Any picture is shown at full size when it is pressed, or by the button on it.
function enlarge(image) {
  const dialog = document.createElement("dialog");
  dialog.className = "enlarged";
  dialog.ariaLabel = image.alt;
  const close = Object.assign(document.createElement("button"), { textContent: "Close", type: "button" });
  const large = Object.assign(document.createElement("img"), { src: image.src, alt: image.alt });
  dialog.append(close, large);
  dialog.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
function offerEnlarging() {
  for (const image of document.querySelectorAll("article :is(figure, .cell_output) img")) {
    if (image.closest("a, .live, .instrument")) continue;
    const frame = image.closest(".widget-subarea") ?? (image.closest(".pan") ?? image).parentElement;
    keepLegible(image);
    if (frame.querySelector(":scope > .enlarge")) continue;
    frame.classList.add("enlargeable");
    const button = Object.assign(document.createElement("button"), { className: "enlarge", type: "button" });
    button.ariaLabel = "Enlarge the picture";
    button.textContent = "⤢";
    frame.append(button);
    frame.addEventListener("click", ({ target }) => {
      const shown = [...frame.querySelectorAll("img")].find((one) => one.checkVisibility());
      if (target === button || target.tagName === "IMG") enlarge(target === button ? shown : target);
    });
  }
}

// Search: a chapter with the word in its title comes first, then a section, where the page is opened. What was sought is
// handed on in the address, which works from a file too, and marked on the page.
function searchBetter() {
  const ask = Search._performSearch;
  const chapter = /^book\/(flows|mnf|experiments)\//;
  Search._performSearch = (query, ...rest) => {
    const results = ask(query, ...rest);
    const word = query.toLowerCase().trim();
    const names = (title) => title.toLowerCase().includes(word);
    const { docnames, filenames, titles, alltitles } = Search._index;
    for (const result of results) {
      const [document, title, anchor] = result;
      if (chapter.test(document) && names(title)) result[4] += anchor ? 20 : 50;
    }
    const known = new Set(results.map(([document, , anchor]) => document + (anchor ?? "")));
    for (const [title, places] of Object.entries(alltitles)) {
      if (/^(Solution to| \()/.test(title)) continue; // exercises, named in brackets
      for (const [at, id] of names(title) ? places : []) {
        if (!id || known.has(`${docnames[at]}#${id}`)) continue;
        const score = chapter.test(docnames[at]) ? 30 : 10;
        results.push([docnames[at], `${titles[at]} > ${title}`, `#${id}`, null, score, filenames[at]]);
      }
    }
    return results.sort((a, b) => a[4] - b[4]); // the last one is shown first
  };
  document.getElementById("search-results").addEventListener(
    "click",
    ({ target }) => {
      const link = target.closest("a");
      const words = localStorage.getItem("sphinx_highlight_terms");
      if (!link || !words) return;
      localStorage.removeItem("sphinx_highlight_terms");
      const address = new URL(link.href);
      address.searchParams.set("found", words);
      link.href = address;
    },
    true,
  );
}

function markFound(words) {
  const article = document.querySelector("article");
  const pattern = words.split(/\s+/).filter(Boolean).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|");
  if (!article || !pattern) return;
  const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) {
    if (!walker.currentNode.parentElement.closest("script, style, svg, .math, .widget-subarea")) texts.push(walker.currentNode);
  }
  for (const text of texts) {
    for (const found of [...text.data.matchAll(new RegExp(pattern, "gi"))].reverse()) {
      const range = document.createRange();
      range.setStart(text, found.index);
      range.setEnd(text, found.index + found[0].length);
      range.surroundContents(Object.assign(document.createElement("mark"), { className: "highlighted" }));
    }
  }
  if (!location.hash) article.querySelector("mark.highlighted")?.scrollIntoView({ block: "center" });
}

document.addEventListener("DOMContentLoaded", () => {
  if (document.getElementById("search-results") && typeof Search !== "undefined") searchBetter();
  const words = new URLSearchParams(location.search).get("found");
  if (words) markFound(words);
});
