"use strict";
// Draws each figure in its place; the trials' table shows the lines selected in the parallel coordinates.
const figures = JSON.parse(document.getElementById("figures").textContent);
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

for (const [name, { data, layout }] of Object.entries(figures)) {
  const place = document.getElementById(`plot-${name}`);
  Plotly.newPlot(place, data, layout, settings).then(() => {
    if (name === "parallel_coordinates") {
      place.on("plotly_restyle", () => filter(place));
    }
  });
}
