"use strict";
// Draws each figure in its place; the trials' table shows the lines selected in the parallel coordinates.
const figures = JSON.parse(document.getElementById("figures").textContent);
const narrow = matchMedia("(max-width: 40rem)");
const settings = {
  responsive: true,
  displaylogo: false,
  // Plotly would offer to send the figure, texts and all, to its maker's server.
  showSendToCloud: false,
  plotlyServerURL: "",
  modeBarButtonsToRemove: ["sendChartToCloud", "select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
};

// A line is selected when every axis with marked ranges has one that holds it.
function selector(axes) {
  const ranges = (axis) => (Array.isArray(axis.constraintrange[0]) ? axis.constraintrange : [axis.constraintrange]);
  return (line) => axes.every((axis) => ranges(axis).some(
    ([low, high]) => axis.values[line] >= low && axis.values[line] <= high));
}

function filter(figure) {
  const marked = figure.data[0].dimensions.filter((axis) => axis.constraintrange && axis.constraintrange.length);
  const selected = selector(marked);
  const rows = [...document.querySelectorAll("#trials tbody tr")];
  for (const row of rows) {
    row.hidden = marked.length > 0 && !(row.dataset.line !== "" && selected(Number(row.dataset.line)));
  }
  const shown = rows.filter((row) => !row.hidden).length;
  document.getElementById("shown").textContent = marked.length ? `${shown} of ${rows.length} trials` : "all trials";
}

// Panels stand in as many columns as there is room for. On a phone, a finger on a plot moves the page.
function fitted(place, { layout }) {
  const { panels, panel_width, panel_height, narrowest, widest } = layout.meta || {};
  place.style.minWidth = narrowest ? `${narrowest}px` : "";
  place.style.maxWidth = widest ? `${Math.max(widest, 420)}px` : "";
  const fit = { ...layout, dragmode: narrow.matches ? false : layout.dragmode };
  if (!panels) {
    return fit;
  }
  const columns = Math.max(1, Math.min(layout.grid.columns, Math.floor(place.clientWidth / panel_width)));
  const rows = Math.ceil(panels / columns);
  const height = layout.height + (rows - layout.grid.rows) * panel_height;
  return { ...fit, height, grid: { ...layout.grid, rows, columns } };
}

function draw(name, figure) {
  const place = document.getElementById(`plot-${name}`);
  const shown = { ...settings, displayModeBar: narrow.matches ? false : "hover" };
  return Plotly.react(place, figure.data, fitted(place, figure), shown).then(() => place);
}

// What is wider than the page can be scrolled with the keyboard too.
function reach() {
  for (const box of document.querySelectorAll(".wide")) {
    box.tabIndex = box.scrollWidth > box.clientWidth ? 0 : -1;
  }
}

const drawn = Object.entries(figures).map(([name, figure]) => draw(name, figure).then((place) => {
  if (name === "parallel_coordinates") {
    place.on("plotly_restyle", () => filter(place));
  }
}));
Promise.all(drawn).then(reach);

let later;
let width = window.innerWidth;
window.addEventListener("resize", () => {
  clearTimeout(later);
  later = setTimeout(() => {
    // The height alone changes whenever a phone hides its bars.
    if (window.innerWidth !== width) {
      width = window.innerWidth;
      Promise.all(Object.entries(figures).map(([name, figure]) => draw(name, figure))).then(reach);
    }
  }, 200);
});
document.addEventListener("toggle", reach, true);
// On paper nothing can be unfolded.
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((part) => { part.open = true; });
});
