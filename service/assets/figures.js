// Draws every figure: plotly data and layout from the JSON beside the plot, colours from the page's CSS variables.
"use strict";
(function () {
  const drawn = new WeakMap(); // plot element -> the JSON text it shows

  // A variable's value is text such as light-dark(a, b); only an element that uses it knows the colour.
  function resolved(names) {
    const probe = document.createElement("span");
    document.body.append(probe);
    const values = {};
    for (const name of names) {
      probe.style.color = `var(${name})`;
      values[name] = getComputedStyle(probe).color;
    }
    probe.remove();
    return values;
  }

  function themed(layout, colours) {
    const colour = (name) => colours[name];
    const family = getComputedStyle(document.body).fontFamily;
    const axis = {
      gridcolor: colour("--grid"), linecolor: colour("--line-strong"), tickcolor: colour("--line-strong"),
      title: { font: { size: 12, color: colour("--ink-soft") }, standoff: 12 },
      tickfont: { size: 11, color: colour("--ink-soft") },
    };
    const merge = (own) => ({ ...axis, ...own, title: { ...axis.title, ...(own && own.title) } });
    return {
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: family, size: 12, color: colour("--ink") },
      xaxis: { showline: true, ticks: "outside", ticklen: 4, ...merge(layout.xaxis) },
      yaxis: merge(layout.yaxis),
      hoverlabel: {
        bgcolor: colour("--sheet"), bordercolor: colour("--line-strong"),
        font: { family: family, size: 12, color: colour("--ink") }, align: "left",
      },
    };
  }

  function draw(plot, isForced) {
    const source = document.getElementById(plot.dataset.figure);
    if (!source || !window.Plotly) return;
    const text = source.textContent;
    if (!isForced && drawn.get(plot) === text) return;
    drawn.set(plot, text);
    const spec = JSON.parse(text);
    const isEmpty = spec.data.length === 0;
    plot.hidden = isEmpty;
    plot.parentElement.querySelector(".nothing").hidden = !isEmpty;
    if (isEmpty) return;
    const colours = resolved(["--grid", "--line-strong", "--ink", "--ink-soft", "--sheet"]);
    for (const trace of spec.data) if (trace.error_x) trace.error_x.color = colours["--ink"];
    Plotly.react(plot, spec.data, themed(spec.layout, colours), { responsive: true, displayModeBar: false });
  }

  function drawAll(isForced) {
    document.querySelectorAll("[data-figure]").forEach((plot) => draw(plot, isForced));
  }

  window.isoflopDrawFigures = drawAll;
  document.addEventListener("themechange", () => drawAll(true));
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", () => drawAll(false));
  else drawAll(false);
})();
