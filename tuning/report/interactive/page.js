"use strict";
// Draws each figure in its place, and keeps the table below the parallel coordinates to the lines one has chosen.
const figures = JSON.parse(document.getElementById("figures").textContent);
const settings = {
  responsive: true,
  displaylogo: false,
  // Plotly would offer to send the figure, texts and all, to its maker's server.
  showSendToCloud: false,
  plotlyServerURL: "",
  modeBarButtonsToRemove: ["sendChartToCloud", "select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
};

function chosen(figure) {
  // A line is chosen when each axis with marked ranges has one that holds it.
  const [lines] = figure.data;
  const axes = lines.dimensions.filter((axis) => axis.constraintrange && axis.constraintrange.length);
  const ranges = (axis) => (Array.isArray(axis.constraintrange[0]) ? axis.constraintrange : [axis.constraintrange]);
  return (line) => axes.every((axis) => ranges(axis).some(
    ([low, high]) => axis.values[line] >= low && axis.values[line] <= high));
}

function filter(figure) {
  const keeps = chosen(figure);
  const rows = [...document.querySelectorAll("#trials tbody tr")];
  const marked = figure.data[0].dimensions.some((axis) => axis.constraintrange && axis.constraintrange.length);
  for (const row of rows) {
    row.hidden = marked && !(row.dataset.line !== "" && keeps(Number(row.dataset.line)));
  }
  const shown = rows.filter((row) => !row.hidden).length;
  document.getElementById("shown").textContent = marked ? `${shown} of ${rows.length} trials` : "all trials";
}

for (const [name, { data, layout }] of Object.entries(figures)) {
  const place = document.getElementById(`plot-${name}`);
  Plotly.newPlot(place, data, layout, settings).then(() => {
    if (name === "parallel_coordinates") {
      place.on("plotly_restyle", () => filter(place));
    }
  });
}
