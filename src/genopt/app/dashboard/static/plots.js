// The drawn views, each from the studies that pass the filters.
// -- metric against a key ---------------------------------------------------------------------
function keysView(root) {
  let view = null;
  const again = () => view?.update();
  view = plotView(
    root,
    () => {
      const names = keyNames();
      const first = names.find((n) => column(n).kind === "number" && n !== "seed");
      if (!names.length) return [];
      const key = choice("Key", names, "x", again, first);
      const other = names.find((n) => n !== chosen.plots.x && n !== "seed");
      return [key, choice("Colour", [["", "none"], ...names], "color", again, other)];
    },
    () => {
      const metric = chosen.metric;
      const rows = metric ? finishedRows(metric) : [];
      const x = column(chosen.plots.x);
      if (!rows.length) return nothing();
      if (!x || !keyNames().length) return { why: "Nothing varies between these studies." };
      const color = chosen.plots.color;
      const colors = color ? levels(color, rows) : [""];
      const others = settingColumns().filter((c) => c !== x);
      const groups = new Map();
      const seeded = x.name === "seed";
      for (const s of settingsOf(rows, metric)) {
        for (const own of seeded ? s.own.map((i) => [i]) : [s.own]) {
          const numbers = own.map((i) => column(metric).values[i]).sort((a, b) => a - b);
          const level = color ? shown(column(color), own[0]) : "";
          const line = JSON.stringify([level, ...others.map((c) => c.values[own[0]])]);
          if (!groups.has(line)) groups.set(line, { level, points: [] });
          groups.get(line).points.push({ at: x.values[own[0]], numbers, middle: median(numbers), own });
        }
      }
      const all = rows.map((i) => column(metric).values[i]);
      const at = rows.map((i) => x.values[i]);
      // where a study does not have the key its place is a name, like any other
      const numeric = x.kind === "number" && !at.includes(null);
      const legends = new Set();
      const series = [...groups.values()].sort((a, b) => colors.indexOf(a.level) - colors.indexOf(b.level));
      // few lines have a name each, many share that of their colour
      const few = series.length > 1 && series.length <= 8;
      const apart = others.filter((c) => c.name !== color && new Set(series.map((g) => c.values[g.points[0].own[0]])).size > 1);
      const tail = (i) => apart.filter((c) => c.values[i] !== null).map((c) => `${c.name} = ${shown(c, i)}`);
      const traces = series.map((group, place) => {
        const k = colors.indexOf(group.level);
        const points = group.points.sort((a, b) => (numeric ? a.at - b.at : String(a.at).localeCompare(String(b.at), undefined, { numeric: true })));
        const legend = few || (color && !legends.has(group.level));
        legends.add(group.level);
        const name = [...(color ? [`${color} = ${group.level}`] : []), ...(few ? tail(points[0].own[0]) : [])].join(", ");
        return {
          type: "scatter",
          mode: points.length > 1 ? "lines+markers" : "markers",
          name,
          legendgroup: few ? name : group.level,
          showlegend: Boolean(legend),
          x: points.map((p) => (numeric ? p.at : shown(x, p.own[0]))),
          y: points.map((p) => p.middle),
          error_y: {
            type: "data", symmetric: false, thickness: 1.3, width: 3,
            array: points.map((p) => p.numbers[p.numbers.length - 1] - p.middle),
            arrayminus: points.map((p) => p.middle - p.numbers[0]),
          },
          customdata: points.map((p) => data.ids[p.own[0]]),
          text: points.map((p) => `${told(p.own[0])}<br>median ${short(p.middle)} of ${p.numbers.length}: ${short(p.numbers[0])} to ${short(p.numbers[p.numbers.length - 1])}`),
          hovertemplate: "%{text}<extra></extra>",
          line: { width: 1.5, dash: DASHES[place % 4] },
          marker: { size: 8, color: PALETTE[k % 8], symbol: SYMBOLS[k % 8], line: { color: "white", width: 0.7 } },
          opacity: groups.size > 12 ? 0.75 : 1,
        };
      });
      traces.forEach((t) => (t.line.color = t.marker.color));
      const words = seeded
        ? "One point a study; lines join studies that differ in nothing but the seed."
        : "Point: median over the seeds of a setting; bar: smallest to largest of them. Lines join settings that differ in nothing but this key.";
      const axis = numeric ? scaled(x.name, at) : { title: { text: x.name, font: { size: 13 } }, type: "category", categoryorder: "array", categoryarray: levels(x.name, rows) };
      if (numeric && new Set(at).size <= 12) {
        axis.tickvals = [...new Set(at)].sort((a, b) => a - b);
        axis.ticktext = axis.tickvals.map((v) => short(v, 6));
      }
      return { traces, words, layout: layout(axis, scaled(metric, all)) };
    },
  );
  return view;
}

// -- parallel coordinates ---------------------------------------------------------------------
function webgl() {
  const canvas = document.createElement("canvas");
  return Boolean(canvas.getContext("webgl2") || canvas.getContext("webgl"));
}

function parallelView(root) {
  return plotView(root, () => [], () => {
    const metric = chosen.metric;
    const rows = metric ? finishedRows(metric) : [];
    if (!rows.length) return nothing();
    if (!webgl()) return { why: "This browser has no WebGL, which this view needs; the other views do not." };
    const extra = shownColumns().filter((c) => c.group === "metric" && c.name !== metric && rows.some((i) => c.values[i] !== null));
    const columns = [...keyNames().map(column), ...extra.slice(0, 3), column(metric)];
    const dimensions = columns.map((col) => {
      const values = rows.map((i) => col.values[i]);
      const label = col.name.length > 22 ? `…${col.name.slice(-21)}` : col.name;
      const few = col.group === "key" && new Set(values).size <= 8;
      if (col.kind !== "number" || few || col.name === "seed") {
        const names = levels(col.name, rows);
        return { label, values: rows.map((i) => names.indexOf(shown(col, i))), tickvals: range(names.length), ticktext: names.map((n) => (n.length > 18 ? `${n.slice(0, 17)}…` : n)), range: names.length > 1 ? [0, names.length - 1] : [-1, 1] };
      }
      const log = isLog(values);
      const missing = Math.min(...known(values));
      const to = (v) => (v === null ? (log ? Math.log10(missing) : missing) : log ? Math.log10(v) : v);
      const all = values.map(to);
      const [low, high] = [Math.min(...all), Math.max(...all)];
      const ticks = range(5).map((k) => low + ((high - low) * k) / 4);
      return { label: log ? `${label} (log)` : label, values: all, range: [low, high || low + 1], tickvals: ticks, ticktext: ticks.map((t) => short(log ? 10 ** t : t, 3)) };
    });
    const line = dimensions[dimensions.length - 1].values;
    const reverse = higher(metric);
    // dark is good, whichever way that is
    const scale = [[0, "#1d3f6e"], [0.35, "#2f6db3"], [0.65, "#d9a05b"], [1, "#f0d9b8"]];
    return {
      traces: [{ type: "parcoords", dimensions, labelangle: columns.length > 7 ? -20 : 0, labelside: "top", line: { color: line, colorscale: scale, reversescale: reverse, showscale: false } }],
      words: `One line a study, dark where ${metric} is good. Drag along an axis to keep a part of it, drag an axis to move it.`,
      layout: { ...layout({}, {}), margin: { l: 90, r: 90, t: columns.length > 7 ? 90 : 60, b: 30 } },
    };
  });
}

// -- learning curves --------------------------------------------------------------------------
let curves = null;

function curvesNow() {
  if (live) return data.curves || {};
  curves ??= read("curves");
  return curves;
}

const MOST_CURVES = 300;

function curvesView(root) {
  let view = null;
  const again = () => view?.update();
  view = plotView(
    root,
    () => {
      const names = Object.keys(curvesNow());
      if (!names.length) return [];
      const keys = keyNames(visible().filter((i) => names.some((n) => curvesNow()[n][data.ids[i]])));
      return [choice("Curve", names, "series", again, "validation/loss"), choice("Colour", [["", "none"], ...keys], "curveColor", again, keys[0])];
    },
    () => {
      const own = curvesNow()[chosen.plots.series] || {};
      const rows = visible().filter((i) => own[data.ids[i]]);
      if (!rows.length) return { why: "No study that passes the filters kept a learning curve; mixtures have none." };
      const drawn = rows.slice(-MOST_CURVES);
      const name = chosen.plots.curveColor;
      const colors = name ? levels(name, drawn) : [""];
      const legends = new Set();
      const traces = drawn.map((i) => {
        const [x, y] = own[data.ids[i]];
        const level = name ? shown(column(name), i) : "";
        const k = colors.indexOf(level);
        const legend = Boolean(name) && !legends.has(level);
        legends.add(level);
        return {
          type: "scatter", mode: x.length > 1 ? "lines" : "markers", x: x.map((v) => v + 1), y,
          name: name ? `${name} = ${level}` : "", legendgroup: level, showlegend: legend,
          customdata: x.map(() => data.ids[i]),
          hovertemplate: `${told(i)}<br>epoch %{x}: %{y:.3g}<extra></extra>`,
          line: { width: drawn.length > 60 ? 1 : 1.5, color: PALETTE[k % 8], dash: DASHES[Math.floor(k / 8) % 4] }, marker: { color: PALETTE[k % 8] },
          opacity: drawn.length > 60 ? 0.5 : 0.8,
        };
      });
      const all = drawn.flatMap((i) => own[data.ids[i]][1]);
      const words = rows.length > MOST_CURVES ? `The newest ${MOST_CURVES} of ${rows.length}; filter the table to see others.` : `${plural(rows.length, "study")}. A click on a curve opens its study.`;
      return { traces, words, layout: layout({ title: { text: "epoch", font: { size: 13 } } }, scaled(chosen.plots.series, all)) };
    },
  );
  return view;
}

// -- trade-off --------------------------------------------------------------------------------
// Which rows no other row beats in both numbers, by the first number.
function front(rows, a, b) {
  const [u, v] = [a, b].map((name) => {
    const sign = higher(name) ? -1 : 1;
    return (i) => sign * column(name).values[i];
  });
  let least = Infinity;
  return [...rows].sort((i, j) => u(i) - u(j) || v(i) - v(j)).filter((i) => {
    if (v(i) >= least) return false;
    least = v(i);
    return true;
  });
}

function tradeoffView(root) {
  let view = null;
  const again = () => view?.update();
  view = plotView(
    root,
    () => {
      const names = metrics();
      if (names.length < 2) return [];
      const cost = ["fit_cpu_seconds", "fit_seconds"].find((n) => names.includes(n));
      const keys = keyNames();
      return [choice("Across", names, "across", again, cost || names[1]), choice("Up", names, "up", again, chosen.metric), choice("Colour", [["", "none"], ...keys], "tradeColor", again, keys[0])];
    },
    () => {
      const [a, b] = [chosen.plots.across, chosen.plots.up];
      const rows = a && b ? finishedRows(a).filter((i) => typeof column(b)?.values[i] === "number") : [];
      if (!rows.length) return nothing();
      const best = front(rows, a, b);
      const name = chosen.plots.tradeColor;
      const colors = name ? levels(name, rows) : [""];
      const [x, y] = [column(a).values, column(b).values];
      const traces = colors.map((level, k) => {
        const own = name ? rows.filter((i) => shown(column(name), i) === level) : rows;
        return {
          type: "scatter", mode: "markers", name: name ? `${name} = ${level}` : "studies", x: own.map((i) => x[i]), y: own.map((i) => y[i]),
          customdata: own.map((i) => data.ids[i]),
          text: own.map((i) => `${told(i)}<br>${escaped(a)} ${short(x[i])}<br>${escaped(b)} ${short(y[i])}`), hovertemplate: "%{text}<extra></extra>",
          marker: { size: 8, color: PALETTE[k % 8], symbol: SYMBOLS[k % 8], opacity: 0.75, line: { color: "white", width: 0.5 } },
        };
      });
      traces.push({
        type: "scatter", mode: "lines+markers", name: "front", x: best.map((i) => x[i]), y: best.map((i) => y[i]),
        customdata: best.map((i) => data.ids[i]), hoverinfo: "skip",
        line: { shape: higher(a) ? "vh" : "hv", color: INK, width: 1.3, dash: "dot" },
        marker: { size: 14, symbol: "circle-open", color: INK, line: { width: 1.6 } },
      });
      const way = (n) => `${n} ${higher(n) ? "higher" : "lower"} is better`;
      return {
        traces,
        words: `Ringed: the ${plural(best.length, "study")} that no other beats in both (${way(a)}, ${way(b)}).`,
        layout: layout(scaled(a, rows.map((i) => x[i])), scaled(b, rows.map((i) => y[i]))),
      };
    },
  );
  return view;
}

// -- importance -------------------------------------------------------------------------------
function importanceView(root) {
  let view = null;
  const again = () => view?.update();
  const own = () => data.importance.filter((x) => data.questions.length < 2 || x.question === (chosen.question ?? 0));
  const searched = () => data.searches.flatMap((s) => Object.entries(s).map(([metric, shares]) => ({ metric: `${metric} (search)`, shares })));
  view = plotView(
    root,
    () => {
      const names = [...own().map((x) => x.metric), ...searched().map((s) => s.metric)];
      return names.length ? [choice("Number", names, "weighed", again, names.includes(chosen.metric) ? chosen.metric : names[0])] : [];
    },
    () => {
      const bySearch = searched().find((s) => s.metric === chosen.plots.weighed);
      const found = bySearch ? null : own().find((x) => x.metric === chosen.plots.weighed);
      if (!bySearch && !found) return nothing();
      if (found?.why) return { why: `Nothing can be said about the keys: ${found.why}.` };
      const pairs = bySearch ? Object.entries(bySearch.shares).sort((a, b) => b[1] - a[1]) : found.keys.map((k, i) => [k, found.mean[i]]);
      const spread = bySearch ? null : found.spread;
      const keys = pairs.map((p) => p[0]);
      const trusted = bySearch || found.explained > 0.1;
      const words = bySearch
        ? "Shares as the search computed them."
        : `${trusted ? "" : "Do not trust these bars: the keys hardly explain this number. "}How much less of ${found.metric}${found.log ? " (its logarithm)" : ""} a random forest explains on studies that it has not seen when one key is shuffled; bar: spread over 5 folds. ` +
          `All keys together explain ${short(Math.max(0, 100 * found.explained), 2)} % of ${found.studies} finished studies, whatever the filters. What seed gets is noise.`;
      return {
        traces: [{
          type: "bar", orientation: "h", y: keys, x: pairs.map((p) => p[1]), marker: { color: trusted ? "#2f6db3" : "#9aa5b1" },
          error_x: spread ? { type: "data", array: spread, thickness: 1.3, width: 4, color: INK } : undefined,
          hovertemplate: "%{y}: %{x:.3g}<extra></extra>",
        }],
        words,
        layout: { ...layout({ title: { text: "importance", font: { size: 13 } }, rangemode: "tozero" }, { autorange: "reversed", type: "category" }), height: Math.max(240, 120 + 44 * keys.length) },
      };
    },
  );
  return view;
}
