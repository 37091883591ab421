// Loaded in the head of every page, before the theme's deferred Font Awesome.
//
// Left alone, Font Awesome replaces every icon element by an SVG as soon as it appears, also those inside the buttons
// of the Play widget, which then no longer react. So it looks once, when the page stands, and never again.
window.FontAwesomeConfig = { autoReplaceSvg: false, observeMutations: false };
document.addEventListener("DOMContentLoaded", () => window.FontAwesome?.dom.i2svg());
