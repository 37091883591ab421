// Loaded in the head of every page, before the deferred scripts of the theme and of MathJax.

// Left alone, Font Awesome replaces every icon element by an SVG as soon as it appears, also those inside the buttons
// of the Play widget, which then no longer react. So it looks once, when the page stands, and never again.
window.FontAwesomeConfig = { autoReplaceSvg: false, observeMutations: false };
document.addEventListener("DOMContentLoaded", () => window.FontAwesome?.dom.i2svg());

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
    },
  };
}

// A page opened from a file may not read other files, so the search lists titles without an extract there.
if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

// What a slider, a button or a folded cell is called when it is read aloud. The widget manager gives a slider no name and
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
  for (const bar of document.querySelectorAll('summary[aria-label="Toggle hidden content"]')) {
    bar.removeAttribute("aria-label"); // it would hide the words that stand on the bar
  }
  const nameAll = () => {
    document.querySelectorAll(".widget-slider").forEach(nameSlider);
    document.querySelectorAll(".widget-play").forEach(namePlay);
    document.querySelectorAll(".widget-subarea:has(.widget-slider)").forEach(announceFrames);
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
