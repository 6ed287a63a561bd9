// Which setting is best, and is it sure: studies that differ in nothing but the seed are one setting.
function settingColumns() {
  return data.columns.filter((c) => c.setting);
}

// Settings among rows, the best median first; those without a number last.
function settingsOf(rows, metric) {
  const columns = settingColumns();
  const values = column(metric)?.values || [];
  const groups = new Map();
  for (const i of rows) {
    const key = JSON.stringify([data.asked[i], ...columns.map((c) => c.values[i])]);
    if (!groups.has(key)) groups.set(key, { rows: [], key });
    groups.get(key).rows.push(i);
  }
  const sign = higher(metric) ? -1 : 1;
  const out = [...groups.values()].map((group) => {
    const own = group.rows.filter((i) => typeof values[i] === "number");
    const numbers = own.map((i) => values[i]).sort((a, b) => a - b);
    return { ...group, own, numbers, middle: median(numbers), first: group.rows[0] };
  });
  return out.sort((a, b) => {
    if (a.middle === null || b.middle === null) return (a.middle === null) - (b.middle === null);
    return sign * (a.middle - b.middle) || b.numbers.length - a.numbers.length;
  });
}

const named = (setting) =>
  settingColumns()
    .filter((c) => c.values[setting.first] !== null && c.values[setting.first] !== "")
    .map((c) => `${c.name}=${shown(c, setting.first)}`)
    .join("  ") || "the only setting";

// In how many pairs of studies the first setting beats the second.
function wins(a, b, metric) {
  const sign = higher(metric) ? -1 : 1;
  let better = 0;
  for (const x of a.numbers) for (const y of b.numbers) better += sign * (x - y) < 0 ? 1 : x === y ? 0.5 : 0;
  return { better, pairs: a.numbers.length * b.numbers.length };
}

function verdictOn(best, next, metric) {
  if (!next) return ["", "nothing to compare with"];
  const { better, pairs } = wins(best, next, metric);
  const few = Math.min(best.numbers.length, next.numbers.length);
  const against = `in ${short(better)} of ${pairs} pairs of seeds it beats the next setting`;
  if (few < 2) return ["unsure", "not sure: a setting has one seed; repeat with seed=0,1,2"];
  if (few >= 3 && better === pairs) return ["sure", `sure: ${against}`];
  if (better >= 0.8 * pairs) return ["likely", `likely: ${against}`];
  return ["unsure", `not sure: ${against}; the seeds differ more than the settings`];
}

function answer(root) {
  const metric = chosen.metric;
  const rows = visible();
  const states = column("state").values;
  const ended = rows.filter((i) => states[i] === "finished").length;
  if (!metric || !ended) {
    const none = filtered() ? "None of the studies that pass the filters has finished." : "No study has finished so far.";
    const said = rows.length ? none : "No study passes the filters.";
    root.replaceChildren(el("p", {}, said));
    return;
  }
  if (new Set(rows.map((i) => data.asked[i]).filter((q) => q >= 0)).size > 1) {
    root.replaceChildren(el("p", {}, "Studies of several problems cannot be ranked: choose a problem above."));
    return;
  }
  const settings = settingsOf(rows, metric).filter((s) => s.middle !== null);
  if (!settings.length) {
    root.replaceChildren(el("p", {}, `No study has ${metric}.`));
    return;
  }
  const [best, next] = settings;
  const [sure, words] = verdictOn(best, next, metric);
  const low = best.numbers[0];
  const high = best.numbers[best.numbers.length - 1];
  root.replaceChildren(
    el("div", { class: "figure" }, el("b", {}, short(best.middle)), el("small", {}, metric)),
    el(
      "div",
      {},
      el("p", {}, el("span", { class: "label" }, "Best setting "), el("code", {}, named(best))),
      el(
        "p",
        { class: "small" },
        best.numbers.length > 1
          ? `median of ${best.numbers.length} seeds, ${short(low)} to ${short(high)}. `
          : "one seed. ",
        next ? `Next: ${short(next.middle)} with ${named(next)}. ` : "",
        el("span", { class: `trust ${sure}` }, words),
      ),
    ),
  );
}

// Each study a dot on the scale that all settings share.
function strip(setting, scale, color) {
  const ns = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("viewBox", "0 0 320 20");
  svg.setAttribute("class", "strip");
  svg.setAttribute("aria-hidden", "true");
  const add = (tag, facts) => {
    const node = document.createElementNS(ns, tag);
    for (const [k, v] of Object.entries(facts)) node.setAttribute(k, v);
    svg.append(node);
  };
  const numbers = setting.numbers;
  add("line", { x1: 6, x2: 314, y1: 10, y2: 10, stroke: "#e6eaee" });
  if (numbers.length) {
    const ends = [scale(numbers[0]), scale(numbers[numbers.length - 1])];
    add("line", { x1: ends[0], x2: ends[1], y1: 10, y2: 10, stroke: color, "stroke-width": 2, opacity: 0.5 });
    for (const v of numbers) add("circle", { cx: scale(v), cy: 10, r: 3.5, fill: color, "fill-opacity": 0.55 });
    const middle = scale(setting.middle);
    add("line", { x1: middle, x2: middle, y1: 3, y2: 17, stroke: INK, "stroke-width": 2 });
  }
  return svg;
}

function settingsView(root) {
  function draw() {
    root.replaceChildren();
    const metric = chosen.metric;
    const columns = settingColumns();
    if (!metric || !columns.length) {
      const why = metric ? "All studies have the same setting." : "No study has finished so far.";
      root.append(el("p", { class: "note" }, why, " The studies are in the next tab."));
      return;
    }
    const settings = settingsOf(visible(), metric);
    const all = settings.flatMap((s) => s.numbers);
    const log = isLog(all);
    const to = log ? Math.log10 : (v) => v;
    const [low, high] = [Math.min(...all.map(to)), Math.max(...all.map(to))];
    const scale = (v) => 6 + (308 * (to(v) - low)) / (high - low || 1);
    const numeric = (yes = true) => ({ class: yes ? "n" : "" });
    const head = (text, props = {}) => el("th", { scope: "col", ...props }, text);
    const many = settings.length > 200;
    const ends = all.length ? `${short(Math.min(...all))} … ${short(Math.max(...all))}${log ? ", log" : ""}` : "";
    const body = settings.slice(0, 200).map((s, place) => {
      const failed = s.rows.length - s.own.length;
      const jump = () => {
        for (const c of columns) {
          const value = c.values[s.first];
          setFilter(c.name, value === null ? "–" : `${c.kind === "number" ? "" : "="}${value}`);
        }
        show("studies");
      };
      return el(
        "tr",
        { class: "go", tabIndex: 0, title: "Show these studies", onclick: jump, onkeydown: (e) => e.key === "Enter" && jump() },
        el("td", { class: "n" }, s.middle === null ? "" : String(place + 1)),
        ...columns.map((c) => el("td", { class: c.kind === "number" ? "n" : "" }, shown(c, s.first))),
        el("td", { class: "n strong" }, short(s.middle)),
        el("td", { class: "n" }, short(s.numbers[0])),
        el("td", { class: "n" }, short(s.numbers[s.numbers.length - 1])),
        el("td", { class: "n" }, String(s.own.length)),
        el("td", { class: "n" }, failed ? String(failed) : ""),
        el("td", { class: "wide" }, strip(s, scale, place ? "#2f6db3" : "#d9822b")),
      );
    });
    root.append(
      el("p", { class: "hint" }, `${plural(settings.length, "setting")}, studies that differ only in their seed taken together; `,
        `best median of ${metric} first (${higher(metric) ? "higher" : "lower"} is better). A click shows its studies.`,
        many ? " The first 200 are shown." : ""),
      el("div", { class: "scroll auto" },
        el("table", { class: "settings" },
          el("thead", {}, el("tr", {}, head("#"), columns.map((c) => head(c.name, numeric(c.kind === "number"))), head("median", numeric()),
            head("lowest", numeric()), head("highest", numeric()), head("seeds", numeric()), head("no number", numeric()), head(`each seed, ${ends}`, { class: "wide" }))),
          el("tbody", {}, body))),
    );
  }
  draw();
  return { update: draw };
}

// What did not finish, the same errors together.
function failuresView(root) {
  async function draw() {
    const states = column("state").values;
    const groups = new Map();
    for (const i of visible()) {
      const state = states[i];
      if (state === "finished" || state === "running" || state === "queued") continue;
      const first = data.errors[i].split("\n")[0];
      const words = first || { missing: "never began", interrupted: "its process is gone" }[state] || "no message";
      const key = `${state}: ${words}`;
      if (!groups.has(key)) groups.set(key, { state, words, rows: [] });
      groups.get(key).rows.push(i);
    }
    if (!groups.size) {
      root.replaceChildren(el("p", { class: "note" }, "Nothing failed, nothing is missing."));
      return;
    }
    const parts = [el("p", { class: "hint" }, "Run these again, with the same settings and in the same folders: ", copied(data.again))];
    for (const { state, words, rows } of [...groups.values()].sort((a, b) => b.rows.length - a.rows.length)) {
      const names = rows.slice(0, 40).map((i) =>
        el("button", { type: "button", class: "link", onclick: (e) => showStudy(data.ids[i], e.target) }, column("study").values[i]));
      const said = await detailsOf(data.ids[rows[0]]);
      parts.push(
        el("section", { class: "failure" },
          el("h3", {}, chip(state), ` · ${plural(rows.length, "study")}: `, el("span", {}, words)),
          el("p", { class: "names" }, names, rows.length > 40 ? ` and ${rows.length - 40} more` : ""),
          said?.log?.length ? el("pre", { class: "log" }, said.log.slice(-14).join("\n")) : null));
    }
    root.replaceChildren(...parts);
  }
  draw();
  return { update: draw };
}
