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
