// What drawn views share. Plotly is 5 MB of script, so it is started when the first of them is opened.
let plotly = null;

async function loadPlotly() {
  await whole;
  plotly ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    const source = $("#plotly_source");
    if (source) script.textContent = source.textContent;
    else {
      script.src = "plotly.js";
      script.onload = () => resolve(window.Plotly);
      script.onerror = () => reject(new Error("Plotly could not be read"));
    }
    document.head.append(script);
    if (source) (window.Plotly ? resolve : reject)(window.Plotly);
  });
  return plotly;
}

const AXIS = { gridcolor: "#e6eaee", zeroline: false, linecolor: "#9aa5b1", ticks: "outside", tickcolor: "#9aa5b1", automargin: true };

function layout(x, y, more = {}) {
  return {
    font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", size: 13, color: INK },
    paper_bgcolor: "white",
    plot_bgcolor: "white",
    margin: { l: 70, r: 24, t: 16, b: 60 },
    hovermode: "closest",
    hoverlabel: { bgcolor: "white", bordercolor: "#9aa5b1", font: { color: INK }, align: "left" },
    legend: { orientation: "h", y: -0.18, x: 0, yanchor: "top" },
    uirevision: JSON.stringify([x, y]),
    xaxis: { ...AXIS, ...x },
    yaxis: { ...AXIS, ...y },
    ...more,
  };
}

// A log axis over a few decades names the two and the five of each, with all their digits.
function scaled(name, values) {
  const axis = { title: { text: name, font: { size: 13 } } };
  if (!isLog(values)) return axis;
  const all = known(values);
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const far = low < 1e-3 || high > 1e5;
  return { ...axis, type: "log", dtick: high < 1e3 * low ? "D2" : high < 1e8 * low ? 1 : undefined, tickformat: far ? "~e" : "~g" };
}

const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;");
const told = (i) =>
  [`<b>${escaped(column("study").values[i])}</b>`, ...settingColumns().filter((c) => c.values[i] !== null && c.values[i] !== "").map((c) => `${escaped(c.name)} = ${escaped(shown(c, i))}`)].join("<br>");

// A view with choices above, a drawing and a sentence below; `draw` gives traces, layout and words.
function plotView(root, controls, draw) {
  const bar = el("div", { class: "tools" });
  const place = el("div", { class: "plot" });
  const words = el("p", { class: "hint", "aria-live": "polite" });
  root.append(bar, place, words);
  let listening = false;

  async function update() {
    await whole;
    if (!root.contains(place)) return;
    const made = controls();
    // a list that is open under the pointer is not exchanged
    if (!bar.contains(document.activeElement)) bar.replaceChildren(...made);
    const drawn = draw();
    words.textContent = drawn.words || "";
    if (!drawn.traces) {
      if (listening) window.Plotly.purge(place);
      listening = false;
      place.replaceChildren(el("p", { class: "note" }, drawn.why));
      place.classList.add("empty");
      place.dataset.drawn = "empty";
      return;
    }
    try {
      const Plotly = await loadPlotly();
      if (!root.contains(place)) return;
      if (place.classList.contains("empty")) place.replaceChildren();
      place.classList.remove("empty");
      place.style.height = drawn.layout.height ? `${drawn.layout.height + 2}px` : "";
      await Plotly.react(place, drawn.traces, drawn.layout, { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] });
      if (!listening && place.on) {
        place.on("plotly_click", (event) => {
          const id = event.points?.[0]?.customdata;
          if (typeof id === "string" && data.ids.includes(id)) showStudy(id, null, false);
        });
        listening = true;
      }
      place.dataset.drawn = String(drawn.traces.length);
    } catch (error) {
      place.replaceChildren(el("p", { class: "note" }, `The drawing failed: ${error.message}`));
      place.dataset.drawn = "failed";
    }
  }
  update();
  return { update };
}

function choice(label, names, key, update, fallback) {
  const flat = names.map((n) => (Array.isArray(n) ? n[0] : n));
  if (!flat.includes(chosen.plots[key])) chosen.plots[key] = flat.includes(fallback) ? fallback : flat[0];
  const select = el("select", { "data-plot": key, onchange: (event) => {
    chosen.plots[key] = event.target.value;
    update();
  } });
  options(select, names, chosen.plots[key]);
  return el("label", {}, `${label} `, select);
}

// Keys that vary between the studies that are drawn.
function keyNames(rows = finishedRows(chosen.metric)) {
  const varied = (c) => new Set(rows.map((i) => c.values[i])).size > 1;
  return [...settingColumns(), column("seed")].filter(varied).map((c) => c.name);
}

const finishedRows = (metric) => visible().filter((i) => typeof column(metric)?.values[i] === "number");
const nothing = () => ({ why: chosen.metric ? "No finished study passes the filters." : "No study has finished so far." });

function levels(name, rows) {
  const col = column(name);
  if (!col) return [];
  const seen = new Map(rows.map((i) => [shown(col, i), col.values[i]]));
  const size = ([text, value]) => (typeof value === "number" ? value : text === "–" ? -Infinity : 0);
  const pairs = [...seen].sort((a, b) => size(a) - size(b) || a[0].localeCompare(b[0], undefined, { numeric: true }));
  return pairs.map((pair) => pair[0]);
}
